"""Attention within shifted windows and within neighbourhoods, for maps of any size, without masks over padded maps.

Both are products of two axes: a tile of consecutive rows and columns of queries sees a span of consecutive rows and
columns of keys. Along an axis, tiles that look alike follow each other in runs: a first one, many in the middle, a last
one. A map is then at most a few rectangles of equal tiles, each of them one call of dense attention with one bias.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .paths import with_reference

# Queries per tile along an axis of neighbourhood attention. A tile of n queries computes n * (n + K - 1) products where
# n * K are needed, but small tiles copy more keys.
_TILE = 7


class Run(NamedTuple):
    """``count`` tiles of ``size`` queries from ``start`` on; tile j sees ``span`` keys from ``key + j * size`` on."""

    start: int
    count: int
    size: int
    key: int
    span: int


@with_reference
def window_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, shift: int = 0) -> Tensor:
    """Attention within windows that tile the map, shifted (Swin Transformer, https://arxiv.org/abs/2103.14030, 3.2).

    A cyclic shift with its mask is the same as windows that begin ``shift`` pixels in, with cut ones at the borders;
    cut windows also serve maps that the window does not divide.

    Args:
        q: (B, heads, H, W, d).
        k: (B, heads, H, W, d).
        v: (B, heads, H, W, d).
        table: (heads, 2 M - 1, 2 M - 1), the bias by (key - query) + M - 1 in y and x for windows of M x M.
        shift: Rows and columns that the windows are shifted by, 0 to M - 1.

    Returns:
        (B, heads, H, W, d).
    """
    window = (table.shape[-1] + 1) // 2
    if not 0 <= shift < window:
        raise ValueError(f'the shift of a window of {window} must be 0 to {window - 1}, got {shift}')
    return _tiled(q, k, v, table, lambda n: window_runs(n, window, shift), kernel=None)


@with_reference
def neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Each pixel attends to the K x K pixels around it (NAT, https://arxiv.org/abs/2204.07143, equations 1 to 3).

    At a border the neighbourhood is shifted inside the map, so that it is always full. Along an axis that is shorter
    than K it is the whole axis; what the authors' code pads there with zeros is left out.

    Args:
        q: (B, heads, H, W, d).
        k: (B, heads, H, W, d).
        v: (B, heads, H, W, d).
        table: (heads, 2 K - 1, 2 K - 1), the bias by (key - query) + K - 1 in y and x; K is odd.

    Returns:
        (B, heads, H, W, d).
    """
    kernel = (table.shape[-1] + 1) // 2
    if kernel % 2 == 0:
        raise ValueError(f'the kernel of neighbourhood attention must be odd, got {kernel}')
    return _tiled(q, k, v, table, lambda n: neighborhood_runs(n, kernel), kernel)


@lru_cache
def window_runs(n: int, window: int, shift: int) -> tuple[Run, ...]:
    """How windows cut an axis of ``n``."""
    first = min(shift, n)
    count, rest = divmod(n - first, window)
    runs = (
        Run(0, 1, first, 0, first),
        Run(first, count, window, first, window),
        Run(n - rest, 1, rest, n - rest, rest),
    )
    return tuple(run for run in runs if run.count and run.size)


@lru_cache
def neighborhood_runs(n: int, kernel: int) -> tuple[Run, ...]:
    """How neighbourhoods cut an axis of ``n``."""
    runs: list[Run] = []
    for start in range(0, n, _TILE):
        size = min(_TILE, n - start)
        # The neighbourhoods of the first and of the last query, shifted inside the axis.
        key, last = (min(max(i - kernel // 2, 0), max(n - kernel, 0)) for i in (start, start + size - 1))
        span = min(last + kernel, n) - key
        before = runs[-1] if runs else None
        if before and (before.size, before.span, before.key - before.start) == (size, span, key - start):
            runs[-1] = before._replace(count=before.count + 1)
        else:
            runs.append(Run(start, 1, size, key, span))
    return tuple(runs)


def surplus_pairs(hw: tuple[int, int], kernel: int) -> int:
    """Pairs of query and key on a map that :func:`neighborhood_attention` computes and no neighbourhood has."""
    computed, needed = 1, 1
    for n in hw:
        computed *= sum(run.count * run.size * run.span for run in neighborhood_runs(n, kernel))
        needed *= n * min(n, kernel)
    return computed - needed


def _tiled(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, runs: Callable[[int], tuple[Run, ...]], kernel: int | None
) -> Tensor:
    """``kernel``: what a query sees of its tile's span; None: all of it."""
    h, w = q.shape[2:4]
    rows, columns = runs(h), runs(w)
    table = table.to(q.dtype)
    return torch.cat(
        [torch.cat([_rectangle(q, k, v, table, row, column, kernel) for column in columns], dim=3) for row in rows],
        dim=2,
    )


def _rectangle(q: Tensor, k: Tensor, v: Tensor, table: Tensor, row: Run, column: Run, kernel: int | None) -> Tensor:
    """The output (B, heads, rows, columns, d) of one rectangle of equal tiles."""
    b, heads, h, w, _ = q.shape
    y, bias_y = _relative(row, h, kernel, table)
    x, bias_x = _relative(column, w, kernel, table)
    bias = table[:, y[:, None, :, None], x[None, :, None, :]] + (bias_y[:, None, :, None] + bias_x[None, :, None, :])
    queries = _tiles(q, row.start, row.size, column.start, column.size, row, column)
    keys, values = (_tiles(t, row.key, row.span, column.key, column.span, row, column) for t in (k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.flatten(1, 2).flatten(2)[None])
    out = out.view(b, row.count, column.count, heads, row.size, column.size, -1)
    return out.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)


def _tiles(t: Tensor, y: int, height: int, x: int, width: int, row: Run, column: Run) -> Tensor:
    """(B, heads, H, W, d) -> (B * tiles, heads, height * width, d)."""
    t = t[:, :, y : y + (row.count - 1) * row.size + height, x : x + (column.count - 1) * column.size + width]
    if any(run.count > 1 and run.size != edge for run, edge in ((row, height), (column, width))):
        unfold = _opaque_unfold if torch.compiler.is_compiling() else _unfold
        return unfold(t, [height, width], [row.size, column.size])
    tiles = t.unflatten(3, (-1, width)).unflatten(2, (-1, height))  # (B, heads, rows, height, columns, width, d)
    return tiles.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5).flatten(0, 2)


def _unfold(t: Tensor, size: list[int], step: list[int]) -> Tensor:
    """The tiles of ``size``, ``step`` apart: (B, heads, H, W, d) -> (B * tiles, heads, height * width, d)."""
    tiles = t.unfold(2, size[0], step[0]).unfold(3, size[1], step[1])  # (B, heads, rows, columns, d, height, width)
    return tiles.permute(0, 2, 3, 1, 5, 6, 4).flatten(4, 5).flatten(0, 2).contiguous()


# An operator that torch.compile does not look into: in the C++ that inductor of torch 2.12 writes for it, the gradient
# of an unfold of an unfold runs over the end of its buffer. Without torch.compile it would only cost its call.
_opaque_unfold = torch.library.custom_op('deformable_vit::unfold', _unfold, mutates_args=())


@_opaque_unfold.register_fake
def _(t: Tensor, size: list[int], step: list[int]) -> Tensor:
    rows, columns = ((n - edge) // by + 1 for n, edge, by in zip(t.shape[2:4], size, step, strict=True))
    return t.new_empty(t.shape[0] * rows * columns, t.shape[1], size[0] * size[1], t.shape[-1])


@torch.library.custom_op('deformable_vit::unfold_backward', mutates_args=())
def _unfold_backward(grad: Tensor, shape: list[int], size: list[int], step: list[int]) -> Tensor:
    b, heads, h, w, d = shape
    rows, columns = (h - size[0]) // step[0] + 1, (w - size[1]) // step[1] + 1
    grad = grad.view(b, rows, columns, heads, size[0], size[1], d).permute(0, 3, 1, 2, 6, 4, 5)
    grad = torch.ops.aten.unfold_backward(grad, [b, heads, rows, w, d, size[0]], 3, size[1], step[1])
    return torch.ops.aten.unfold_backward(grad, shape, 2, size[0], step[0])


@_unfold_backward.register_fake
def _(grad: Tensor, shape: list[int], size: list[int], step: list[int]) -> Tensor:
    return grad.new_empty(shape)


def _save_tiling(ctx, inputs: tuple, output: Tensor) -> None:
    t, ctx.size, ctx.step = inputs
    ctx.shape = t.shape


def _tiling_backward(ctx, grad: Tensor) -> tuple:
    return _unfold_backward(grad.contiguous(), list(ctx.shape), ctx.size, ctx.step), None, None


_opaque_unfold.register_autograd(_tiling_backward, setup_context=_save_tiling)


def _relative(run: Run, n: int, kernel: int | None, table: Tensor) -> tuple[Tensor, Tensor]:
    """(size, span) for the queries and keys of a run's tiles: the index into the table, and 0 or minus infinity."""
    query = torch.arange(run.size, device=table.device)[:, None] + run.start
    key = torch.arange(run.span, device=table.device) + run.key
    last = table.shape[-1] - 1
    index = key - query + last // 2
    bias = torch.zeros(index.shape, dtype=table.dtype, device=table.device)
    if kernel is not None:
        first = (query - kernel // 2).clamp(0, max(n - kernel, 0))
        bias = bias.masked_fill((key < first) | (key >= first + kernel), -torch.inf)
    return index.clamp(0, last), bias
