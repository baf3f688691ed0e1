"""Compare the backends of deformable attention on a GPU: deviations, times, memory, and the parts of a chunk.

tools/check_gpu.py --quick runs this, without mmcv and mmengine.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from check_gpu import Report, one_line, short
from torch import Tensor

MINUTES = 8 - 1  # the row that is measured when they are over may compile three kernels


class Layer(NamedTuple):
    """Deformable attention of one stage, for images of one size; (height, width) of queries, keys and table."""

    name: str
    queries: tuple[int, int]
    keys: tuple[int, int]
    heads: int
    groups: int
    table: tuple[int, int]
    dim: int = 32


LAYERS = (
    Layer('DAT-T, stage 3, 800 x 1344', (50, 84), (50, 84), 12, 3, (27, 27)),
    Layer('DAT-T++, stage 3, 800 x 1344', (50, 84), (25, 42), 8, 4, (27, 27)),
)
SMALL = Layer('small', (5, 7), (4, 6), 4, 2, (9, 11), 16)
# Queries and keys of a tile, and warps, of the kernels of forward and of the gradient of the queries.
TILES = ((64, 64, 4), (64, 32, 4), (128, 64, 8), (128, 32, 4), (32, 64, 4), (32, 32, 2))
Function = Callable[..., Tensor]


def arguments(ops: Any, layer: Layer, batch: int, dtype: torch.dtype, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """Return q, k, v, the table and the locations, which are near a grid as those of models, and y and x of queries."""
    random = torch.Generator().manual_seed(0)
    m, n = (h * w for h, w in (layer.queries, layer.keys))
    qkv = [torch.randn(batch, layer.heads, size, layer.dim, generator=random).to(dtype) for size in (m, n, n)]
    table = torch.randn(layer.heads, *layer.table, generator=random) / 2
    grid, spacing = (f(*layer.keys, 'centers', table) for f in (ops.key_grid, ops.key_spacing))
    moves = torch.randn(batch, layer.groups, n, 2, generator=random)
    locations = grid.flatten(0, 1) + moves * spacing * 2
    leaves = [t.to(device).requires_grad_() for t in (*qkv, table, locations)]
    return leaves, [ops.query_coordinates(size, 'centers', leaves[4]) for size in layer.queries]


def no_bias(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
    """Compute attention without the bias, the least that any backend can take."""
    return F.scaled_dot_product_attention(q, k, v)


@contextmanager
def tile(queries: int, keys: int, warps: int) -> Iterator[None]:
    """Set the tiles of two Triton kernels; those of the gradients of keys and table need more registers."""
    module = importlib.import_module('deformable_vit.ops.triton_attention')
    default = module.tile

    def chosen(kernel: str, *args: Any) -> dict[str, Any]:
        own = dict(QUERIES=queries, KEYS=keys, num_warps=warps)
        return default(kernel, *args) | (own if kernel in ('forward', 'backward_queries') else {})

    module.tile = chosen
    try:
        yield
    finally:
        module.tile = default


def measure(function: Callable[[], Any], device: str, repeats: int = 5) -> tuple[float, float]:
    """Return the median time in ms, after two calls that do not count, and the peak in MiB above what is allocated."""
    if device == 'cpu':
        start = time.perf_counter()
        function()
        return (time.perf_counter() - start) * 1e3, 0.0
    before = torch.cuda.memory_allocated()
    for _ in range(2):
        function()
    torch.cuda.reset_peak_memory_stats()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in events:
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return statistics.median(start.elapsed_time(end) for start, end in events), peak / 2**20


class Quick:
    """The comparison of backends: a row that fails, or for which there is no time, says so."""

    def __init__(self, report: Report, ops: Any, smoke: bool) -> None:
        self.report, self.device = report, 'cpu' if smoke else 'cuda'
        self.ops, self.end = ops, time.monotonic() + 60 * MINUTES
        self.layers = (SMALL,) if smoke else LAYERS
        self.dtypes = (torch.float32,) if smoke else (torch.bfloat16, torch.float32)

    def row(self, table: str, function: Callable[[], dict[str, str]], /, **cells: str) -> None:
        """Add a row with the cells that ``function`` measures."""
        try:
            found = function() if time.monotonic() < self.end else {'note': 'skipped: no time left'}
        except Exception as error:  # whatever a driver, a compiler or a lack of memory raises
            found = {'note': one_line(error)}
        self.report.add(table, **cells, **found)

    def run(self) -> None:
        """Measure. The Triton kernels come last, because an illegal access would fail all that follows."""
        attention = self.ops.deformable_attention
        functions = {
            name: partial(attention, backend=name) for name in ('chunked', 'products', 'separable', 'reference')
        }
        triton: dict[str, Function] = {'triton': partial(attention, backend='triton')}
        self.compare(functions | {'no bias': no_bias})
        for dtype in self.dtypes:
            try:
                self.split(self.layers[0], dtype)
            except RuntimeError as error:  # out of memory
                self.report.add('Parts of a chunk', dtype=short(dtype), note=one_line(error))
        self.compare(triton)
        for queries, keys, warps in TILES[:1] if self.device == 'cpu' else TILES:
            name = f'triton, tile {queries} x {keys}, {warps} warps'
            for dtype in self.dtypes:
                self.times(self.layers[0], 1, dtype, name, triton['triton'], partial(tile, queries, keys, warps))

    def compare(self, functions: dict[str, Function]) -> None:
        """Measure deviations on a small layer, then times of all layers."""
        for dtype in self.dtypes:
            for name, function in functions.items():
                if function is not no_bias:
                    self.row('Deviation', partial(self.deviations, function, dtype), backend=name, dtype=short(dtype))
        for layer, batch in [*((layer, 1) for layer in self.layers), (self.layers[0], 2)]:
            for dtype in self.dtypes:
                for name, function in functions.items():
                    self.times(layer, batch, dtype, name, function)

    def deviations(self, function: Function, dtype: torch.dtype) -> dict[str, str]:
        """Return the largest deviations from ``reference`` in float64, in units of the largest value."""
        leaves, axes = arguments(self.ops, SMALL, 2, dtype, self.device)
        exact = [t.detach().double().requires_grad_() for t in leaves]
        results = []
        for f, args in ((function, leaves), (partial(self.ops.deformable_attention, backend='reference'), exact)):
            out = f(*args, *(t.to(args[4].dtype) for t in axes)).double()
            wave = torch.arange(out.numel(), device=out.device).sin().view_as(out)
            results.append((out, *torch.autograd.grad((out * wave).sum(), args)))
        names = ('output', 'q', 'k', 'v', 'table', 'locations')
        worst = [float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in zip(*results, strict=True)]
        return {name: f'{value:.1e}' for name, value in zip(names, worst, strict=True)}

    def times(
        self,
        layer: Layer,
        batch: int,
        dtype: torch.dtype,
        name: str,
        function: Function,
        context: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Add the times and the peak of forward, and of forward with backward, measured in a context."""

        def found() -> dict[str, str]:
            leaves, axes = arguments(self.ops, layer, batch, dtype, self.device)

            def both() -> None:
                out = function(*leaves, *axes)
                torch.autograd.grad(out, leaves, torch.ones_like(out), allow_unused=True)

            with context():
                with torch.no_grad():
                    forward, _ = measure(lambda: function(*leaves, *axes), self.device)
                training, peak = measure(both, self.device)
            return {'forward ms': f'{forward:.3f}', 'training ms': f'{training:.3f}', 'peak MiB': f'{peak:.0f}'}

        self.row('Times', found, layer=layer.name, batch=str(batch), dtype=short(dtype), backend=name)

    def split(self, layer: Layer, dtype: torch.dtype) -> None:
        """Add the times of the parts of ``chunked`` and ``products``, for as many query rows as a chunk has."""
        modules = (importlib.import_module(f'deformable_vit.ops.{name}') for name in ('attention', 'products'))
        attention, products = modules
        (q, k, v, table, locations), (y, x) = arguments(self.ops, layer, 1, dtype, self.device)
        rows = min(len(y), max(1, attention.MAX_SCORES // (layer.heads * len(x) * k.shape[2])))
        q, y = q[:, :, : rows * len(x)].detach().requires_grad_(), y[:rows]

        def add(part: str, function: Callable[[], Any]) -> None:
            def found() -> dict[str, str]:
                return {'ms': f'{measure(function, self.device, 10)[0]:.3f}'}

            self.row('Parts of a chunk', found, layer=layer.name, rows=str(rows), dtype=short(dtype), part=part)

        for name, read in (('grid_sample', attention.relative_position_bias), ('products', products.product_bias)):
            add(f'{name}, forward', partial(read, table, locations, y, x))
            bias = read(table, locations, y, x)
            grad = torch.ones_like(bias)
            add(f'{name}, backward', partial(torch.autograd.grad, bias, (table, locations), grad, retain_graph=True))
            add(f'{name}, mask in {short(dtype)}', lambda bias=bias: bias.detach().to(q.dtype).clone().contiguous())
        mask = bias.detach().to(dtype).contiguous().requires_grad_()
        attend = partial(F.scaled_dot_product_attention, q, k, v, attn_mask=mask)
        out = attend()
        add('attention with a mask, forward', attend)
        grad = torch.ones_like(out)
        add(
            'attention with a mask, backward',
            lambda: torch.autograd.grad(out, (q, k, v, mask), grad, retain_graph=True),
        )
