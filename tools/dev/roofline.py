"""Write the table of docs/performance.md that says, on paper, what deformable attention takes of a GPU.

Each backend is a list of kernels, one after the other. A kernel takes the longest of: its matrix products at the peak
of the tensor cores, its other operations at that of the float32 units, its traffic at the bandwidth of memory. Not
counted: launches (about 5 us each), atomic additions, and what a cache keeps between two kernels. q, k and v are in
bfloat16, coordinates and bias in float32, as under autocast.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / 'docs' / 'performance.md'
BEGIN, END = '<!-- roofline: written by tools/dev/roofline.py -->', '<!-- end of roofline -->'

# Peaks of the SXM modules, without sparsity: bfloat16 and float32 FLOP/s, bytes/s (data sheets of NVIDIA).
GPUS = {'A100': (312e12, 19.5e12, 2.039e12), 'H100': (989e12, 67e12, 3.35e12)}

# Float32 operations per score, an instruction counted as two: a bilinear read with its indices, and a softmax.
READ, SOFTMAX = 30, 12
# The same for the gradient of the table in the triton backend: weights and sums over the columns that a tile uses.
SPREAD = 100


class Kernel(NamedTuple):
    """FLOPs of matrix products on tensor cores, other float32 FLOPs, bytes, and atomic additions."""

    tensor: float = 0
    vector: float = 0
    bytes: float = 0
    atomics: float = 0

    def seconds(self, gpu: str) -> float:
        """Return the time on paper."""
        tensor, vector, memory = GPUS[gpu]
        return max(self.tensor / tensor, self.vector / vector, self.bytes / memory)


class Call(NamedTuple):
    """One call of deformable attention for one image: (height, width) of the queries and the table, number of keys."""

    queries: tuple[int, int]
    keys: int
    heads: int
    groups: int
    table: tuple[int, int]
    dim: int = 32

    @property
    def scores(self) -> int:
        return math.prod(self.queries) * self.keys * self.heads

    @property
    def pairs(self) -> int:
        """Displacements of a key from a query, which the heads of a group share."""
        return math.prod(self.queries) * self.keys * self.groups

    @property
    def qkvo(self) -> int:
        """Bytes of q, k, v and the output."""
        return 2 * 2 * (math.prod(self.queries) + self.keys) * self.heads * self.dim

    @property
    def read_along_y(self) -> int:
        """Elements of the table read along y, for each key and query row."""
        return self.keys * self.queries[0] * self.heads * self.table[1]

    @property
    def weights(self) -> int:
        """Interpolation weights along both axes."""
        (h, w), (table_h, table_w) = self.queries, self.table
        return self.keys * self.groups * (h * table_h + w * table_w)


Kernels = tuple[list[Kernel], list[Kernel]]  # of forward and of backward


def attention(c: Call, mask: int = 0) -> Kernels:
    """Fused attention, with a mask of ``mask`` bytes and its gradient."""
    forward = Kernel(4 * c.scores * c.dim, SOFTMAX * c.scores, c.qkvo + mask)
    return [forward], [Kernel(10 * c.scores * c.dim, SOFTMAX * c.scores, 2 * c.qkvo + 2 * mask)]


def with_mask(c: Call, bias: list[Kernel], bias_backward: list[Kernel]) -> Kernels:
    """A bias in float32, converted to the mask of attention; chunks are computed again in backward."""
    attend, attend_backward = attention(c, 2 * c.scores)
    convert = Kernel(bytes=6 * c.scores)
    forward = [*bias, convert, *attend]
    again = forward if c.scores > 2**24 else []
    return forward, [*again, *attend_backward, convert, *bias_backward]


def chunked(c: Call) -> Kernels:
    """The bias by ``grid_sample``, at locations (x, y) in float32."""
    grid = 8 * c.pairs
    bias = [Kernel(bytes=grid), Kernel(vector=READ * c.scores, bytes=grid + 4 * c.scores)]
    read = Kernel(vector=2 * READ * c.scores, bytes=2 * grid + 4 * c.scores, atomics=4 * c.scores)
    return with_mask(c, bias, [read, Kernel(bytes=grid)])


def products(c: Call) -> Kernels:
    """The bias as products in float32, along y for all keys, and along x for each."""
    table_h, table_w = c.table
    along_y, along_x = 2 * c.read_along_y * table_h, 2 * c.scores * table_w
    read, weights, bias = 4 * c.read_along_y, 4 * c.weights, 4 * c.scores
    forward = [
        Kernel(bytes=weights),
        Kernel(vector=along_y, bytes=read + weights),
        Kernel(bytes=2 * read),  # heads before rows
        Kernel(vector=along_x, bytes=read + weights + bias),
    ]
    backward = [
        Kernel(bytes=2 * bias),  # keys first
        *[Kernel(vector=along_x, bytes=read + weights + bias)] * 2,
        Kernel(bytes=2 * read),
        *[Kernel(vector=along_y, bytes=read + weights)] * 2,
        Kernel(bytes=2 * weights),  # slopes
    ]
    return with_mask(c, forward, backward)


def separable(c: Call) -> Kernels:
    """Products of attention and bias in float32, half of the columns, and passes over the scores of a chunk."""
    table_h, table_w = c.table
    bias = c.read_along_y * table_h + c.scores * (table_w + 4)
    # 10 and 18 reads and writes of the scores
    forward = Kernel(vector=4 * c.scores * c.dim + bias, bytes=40 * c.scores + 2 * c.qkvo)
    return [forward], [Kernel(vector=10 * c.scores * c.dim + 3 * bias, bytes=72 * c.scores + 4 * c.qkvo)]


def triton(c: Call) -> Kernels:
    """Fused kernels that read the table for each score: backward by queries, by keys, and for the table."""
    product, each = 2 * c.scores * c.dim, (READ + SOFTMAX) * c.scores
    sums = 2 * 2 * 4 * c.keys * c.heads * c.dim  # of the gradients of keys and values, float32, then converted
    return [Kernel(2 * product, each, c.qkvo)], [
        Kernel(3 * product, each, 2 * c.qkvo),
        Kernel(4 * product, each, 2 * c.qkvo + sums),
        Kernel(2 * product, each + SPREAD * c.scores, c.qkvo),
    ]


def official(c: Call) -> Kernels:
    """The official code, operation by operation; it keeps what it computes."""
    s, grid, product = c.scores, 8 * c.pairs, 2 * c.scores * c.dim
    forward = [
        Kernel(product, bytes=2 * s + c.qkvo / 2),
        Kernel(bytes=4 * s),  # scale
        Kernel(bytes=grid),  # displacements
        *[Kernel(bytes=2 * grid)] * 2,  # halved, then as (x, y)
        Kernel(vector=READ * s, bytes=grid + 4 * s),
        Kernel(bytes=10 * s),  # scores + bias, float32
        Kernel(vector=SOFTMAX * s, bytes=8 * s),
        Kernel(bytes=6 * s),  # to bfloat16
        Kernel(product, bytes=2 * s + c.qkvo / 2),
    ]
    backward = [
        *[Kernel(product, bytes=2 * s + c.qkvo / 2)] * 2,
        Kernel(bytes=6 * s),
        Kernel(vector=SOFTMAX * s, bytes=12 * s),
        Kernel(bytes=6 * s),
        Kernel(vector=2 * READ * s, bytes=2 * grid + 4 * s, atomics=4 * s),
        *[Kernel(bytes=2 * grid)] * 2,
        Kernel(bytes=grid),
        Kernel(bytes=4 * s),
        *[Kernel(product, bytes=2 * s + c.qkvo / 2)] * 2,
    ]
    return forward, backward


BACKENDS = {
    'official code': official,
    '`chunked`': chunked,
    '`products`': products,
    '`separable`': separable,
    '`triton`': triton,
    'no bias': attention,
}


def calls() -> Iterator[tuple[str, Call]]:
    """Yield the layers of the table; DAT-T has a key for each query, stage 3 of DAT-T++ one for 2 x 2."""
    for size, (h, w) in {'224 x 224': (14, 14), '800 x 1344': (50, 84)}.items():
        half = -(-h // 2), -(-w // 2)
        yield f'DAT-T 3, {size}', Call((h, w), h * w, 12, 3, (27, 27))
        yield f'DAT-T 4, {size}', Call(half, math.prod(half), 24, 6, (13, 13))
        yield f'DAT-T++ 3, {size}', Call((h, w), math.prod(half), 8, 4, (27, 27))
        yield f'DAT-T++ 4, {size}', Call(half, math.prod(half), 16, 8, (13, 13))


def cells(kernels: list[Kernel]) -> list[str]:
    """Return FLOPs of both kinds, bytes, atomic additions, and the time on each GPU."""
    total = [sum(values) for values in zip(*kernels, strict=True)]
    times = [sum(kernel.seconds(gpu) for kernel in kernels) * 1e3 for gpu in GPUS]
    return [f'{n / 10**p:.3g}' for n, p in zip(total, (9, 9, 9, 6), strict=True)] + [f'{t:.2g}' for t in times]


def table() -> str:
    """Return the table: forward and backward of a call, each backend."""
    head = ['layer', 'backend', 'GFLOP, tensor cores', 'GFLOP, float32', 'GB', 'million atomics']
    rows = [head + [f'{gpu}, ms' for gpu in GPUS], ['---'] * (len(head) + len(GPUS))]
    for name, call in calls():
        for backend, kernels in BACKENDS.items():
            forward, backward = kernels(call)
            rows.append([name, backend, *cells(forward + backward)])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def page() -> str:
    """Return docs/performance.md with the current table."""
    return re.sub(f'{BEGIN}.*{END}', f'{BEGIN}\n\n{table()}\n\n{END}', PAGE.read_text(), flags=re.DOTALL)


def main() -> None:
    PAGE.write_text(page())


if __name__ == '__main__':
    main()
