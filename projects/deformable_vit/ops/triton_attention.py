"""The triton backend of deformable attention: fused kernels for NVIDIA GPUs, on request.

Nothing of size queries x keys is written to memory, and nothing is added atomically: results are the same in each run.
The kernels are in :mod:`.triton_kernels`. Not yet measured on a GPU.
"""

import math
import os
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Constants, on which torch.compile guards. Triton reads the variable when it is imported.
HAS_TRITON = find_spec('triton') is not None
IS_INTERPRETED = os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'yes', 'on', 'y')
HEAD_DIMS = (16, 32, 64)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MIN_CAPABILITY = (8, 0)
# Programs that keep a GPU busy. With fewer tiles of keys, each has several programs, with a part of the queries each.
PROGRAMS = 512


def unsupported(q: Tensor) -> str:
    """Return why the kernels do not take these queries, or an empty string."""
    if not HAS_TRITON:
        return 'needs triton, which is not installed'
    if q.dtype not in DTYPES:
        return f'computes in float32, float16 or bfloat16, got {str(q.dtype).removeprefix("torch.")}'
    if q.shape[-1] not in HEAD_DIMS:
        return f'has kernels for {", ".join(map(str, HEAD_DIMS))} channels a head, got {q.shape[-1]}'
    if IS_INTERPRETED:
        return ''
    if q.device.type != 'cuda':
        return f'runs on CUDA, got tensors on {q.device.type}'
    gpu = torch.cuda.get_device_properties(q.device)  # which torch.compile takes for constants
    if (gpu.major, gpu.minor) < MIN_CAPABILITY:
        return f'needs a GPU of compute capability 8.0 or newer, got {gpu.major}.{gpu.minor}'
    return ''


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor
) -> Tensor:
    """Compute :func:`.deformable_attention`.

    Raises:
        ValueError: The kernels do not take these arguments (see :func:`unsupported`), or the coordinates of the queries
            require a gradient, which is not computed here.
    """
    reason = unsupported(q)
    if query_y.requires_grad or query_x.requires_grad:
        reason = reason or 'computes no gradient of the coordinates of the queries'
    if reason:
        raise ValueError(f"deformable_attention: the backend 'triton' {reason}; use auto")
    # For query (i, j) and key n the bias is the table at (rows[i] - keys[n, 0], columns[j] - keys[n, 1]).
    sizes = table.shape[1] - 1, table.shape[2] - 1
    rows, columns = ((t.float() / 4 + 0.5) * size for t, size in zip((query_y, query_x), sizes, strict=True))
    keys = torch.stack([t / 4 * size for t, size in zip(key_locations.float().unbind(-1), sizes, strict=True)], dim=-1)
    return _attention(q, k.to(q.dtype), v.to(q.dtype), table.float(), keys, rows, columns)[0]


# Queries, keys and warps of a tile, for 16, 32 and 64 channels a head: chosen without a GPU, as the largest at which no
# GPU of ``triton_compile.ARCHITECTURES`` spills registers. The queries of backward_table are those of two rows.
_HALF = {
    'forward': ((64, 64, 4), (64, 64, 4), (64, 32, 4)),
    'backward_queries': ((64, 64, 4), (64, 64, 4), (64, 32, 4)),
    'backward_keys': ((32, 64, 4), (32, 64, 4), (16, 64, 8)),
    'backward_table': ((16, 32, 8), (16, 64, 8), (16, 64, 8)),
}
_FLOAT = {
    'forward': ((64, 32, 4), (64, 32, 4), (32, 32, 4)),
    'backward_queries': ((64, 32, 4), (64, 32, 4), (32, 32, 8)),
    'backward_keys': ((16, 64, 4), (16, 64, 8), (16, 16, 2)),
    'backward_table': ((16, 64, 8), (16, 64, 8), (16, 32, 8)),
}


def tile(kernel: str, dtype: torch.dtype, head_dim: int) -> dict[str, Any]:
    """Return the tile and the other constants of a kernel, its warps and stages, for q in a dtype."""
    is_float = dtype == torch.float32
    queries, keys, warps = (_FLOAT if is_float else _HALF)[kernel][HEAD_DIMS.index(head_dim)]
    # 'tf32', the default, has no meaning for products of half precision.
    others = dict(D=head_dim, KEYS=keys, PRECISION='tf32x3' if is_float else 'tf32', num_warps=warps)
    if kernel != 'backward_table':
        return dict(QUERIES=queries, num_stages=2, **others)
    # Two rows: 88 columns for 84 queries in a row, and 8 x 8 queries for the 7 x 7 of stage 4 at 224.
    return dict(ROWS=2, COLUMNS=queries // 2, TABLE_H=16, TABLE_W=32, num_stages=1, **others)


def _shape(k: Tensor, table: Tensor, key_index: Tensor, column_index: Tensor) -> tuple[int, ...]:
    """Return the arguments of every kernel from ``keys`` to ``table_w``."""
    heads = table.shape[0]
    return k.shape[2], len(column_index), heads, heads // key_index.shape[1], table.shape[1], table.shape[2]


@torch.library.custom_op('deformable_vit::triton_attention', mutates_args=())
def _attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, key_index: Tensor, row_index: Tensor, column_index: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute softmax(Q K^T / sqrt(d) + bias) V with the bias read between table entries, zero outside the table.

    Args:
        q: (B, heads, H * W, d), queries in row-major order.
        k: (B, heads, N, d).
        v: (B, heads, N, d).
        table: (heads, Ty, Tx), float32.
        key_index: (B, G, N, 2), float32, (y, x). The bias of query (i, j) and key n is the table at the fractional
            index (row_index[i] - key_index[n, 0], column_index[j] - key_index[n, 1]).
        row_index: (H,), float32.
        column_index: (W,), float32.

    Returns:
        The output (B, heads, H * W, d) in the dtype of ``q``, and the log-sum-exp of the scores to base 2
        (B, heads, H * W), which has no gradient.
    """
    from . import triton_kernels

    q, k, v, key_index = (t.contiguous() for t in (q, k, v, key_index))
    b, heads, m, d = q.shape
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
    padded = F.pad(table, [triton_kernels.PADDING.value] * 4)
    options = tile('forward', q.dtype, d)
    with torch.cuda.device_of(q):
        triton_kernels.forward[-(-m // options['QUERIES']), b * heads](
            k, v, key_index, q, padded, row_index, column_index, out, lse, d**-0.5, m,
            *_shape(k, table, key_index, column_index), **options,
        )  # fmt: skip
    return out, lse


@_attention.register_fake
def _(q: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=torch.float32)


def _flops(q: torch.Size, k: torch.Size, v: torch.Size, *_args: Any, **_kwargs: Any) -> int:
    """Count the products of attention, and two per score for the bias, read along y and then along x."""
    return 2 * math.prod(q[:3]) * k[2] * (q[3] + v[3] + 2)


FLOP_FORMULAS = {torch.ops.deformable_vit.triton_attention: _flops}


@torch.library.custom_op('deformable_vit::triton_attention_backward', mutates_args=())
def _attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    key_index: Tensor,
    row_index: Tensor,
    column_index: Tensor,
    out: Tensor,
    lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from . import triton_kernels

    q, k, v, key_index, grad = (t.contiguous() for t in (q, k, v, key_index, grad))
    (b, heads, m, d), n, h = q.shape, k.shape[2], len(row_index)
    delta = (grad.float() * out).sum(-1)  # FlashAttention's term of the softmax gradient
    padded = F.pad(table, [triton_kernels.PADDING.value] * 4)
    tensors = q, padded, row_index, column_index, grad, lse, delta
    shape, scale = _shape(k, table, key_index, column_index), d**-0.5
    with torch.cuda.device_of(q):
        d_q, options = torch.empty_like(q), tile('backward_queries', q.dtype, d)
        triton_kernels.backward_queries[-(-m // options['QUERIES']), b * heads](
            k, v, key_index, *tensors, d_q, scale, m, *shape, **options
        )

        options = tile('backward_keys', q.dtype, d)
        tiles = -(-n // options['KEYS'])
        size = _part(m, options['QUERIES'], tiles * b * heads)
        parts = -(-m // size)
        d_k, d_v = q.new_empty(2, parts, b, heads, n, d, dtype=torch.float32)
        d_index = key_index.new_empty(parts, b, key_index.shape[1], heads // key_index.shape[1], n, 2)
        triton_kernels.backward_keys[tiles, b * heads, parts](
            k, v, key_index, *tensors, d_k, d_v, d_index, scale, m, *shape, size, **options
        )

        options = tile('backward_table', q.dtype, d)
        tiles = -(-n // options['KEYS'])
        size = _part(h, options['ROWS'], tiles * b * heads)
        parts = -(-h // size)
        d_table = table.new_zeros(parts * b, heads, tiles, *table.shape[1:])
        k, v, key_index = _sort_keys(k, v, key_index)
        column_range = torch.stack(column_index.aminmax())
        triton_kernels.backward_table[tiles, b * heads, parts](
            k, v, key_index, *tensors, column_range, d_table, scale, h, *shape, size, **options
        )
    return d_q, d_k.sum(0).to(k.dtype), d_v.sum(0).to(v.dtype), d_table.sum((0, 2)), d_index.sum((0, 3))


def _part(length: int, step: int, programs: int) -> int:
    """Return the size of a part, a multiple of ``step``, such that ``programs`` for each part make ``PROGRAMS``."""
    return max(1, length * programs // (PROGRAMS * step)) * step


def _sort_keys(k: Tensor, v: Tensor, key_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort the keys of each group along x, so that those of a tile use few columns of the table."""
    groups = key_index.shape[1]
    order = key_index[..., 1].argsort(dim=-1, stable=True)[..., None]  # (B, G, N, 1)
    k, v = (torch.take_along_dim(t.unflatten(1, (groups, -1)), order[:, :, None], dim=3).flatten(1, 2) for t in (k, v))
    return k, v, torch.take_along_dim(key_index, order, dim=2)


@_attention_backward.register_fake
def _(grad: Tensor, *saved: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in saved[:5])


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_attention_backward(grad, *ctx.saved_tensors), None, None


_attention.register_autograd(_backward, setup_context=_save)
