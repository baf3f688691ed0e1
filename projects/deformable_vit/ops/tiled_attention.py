"""Attention within shifted windows and within neighbourhoods, for maps of any size, without masks over padded maps.

Both are products of two axes: a tile of consecutive rows and columns of queries sees a span of consecutive rows and
columns of keys. Along an axis, tiles that look alike follow each other in runs: a first one, many in the middle, a last
one. A map is then at most a few rectangles of equal tiles, each of them one call of dense attention with one bias.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
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
    count, rest = (n - first) // window, (n - first) % window  # torch.compile has no divmod of sizes
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
    own = [[n for run in axis for n in (run.start, run.count, run.size, run.size)] for axis in (rows, columns)]
    seen = [[n for run in axis for n in (run.key, run.count, run.size, run.span)] for axis in (rows, columns)]
    pieces = zip(product(rows, columns), _tiles(q, *own), _tiles(k, *seen), _tiles(v, *seen), strict=True)
    outs = [
        F.scaled_dot_product_attention(*qkv, attn_mask=_bias(table, row, h, column, w, kernel))
        for (row, column), *qkv in pieces
    ]
    return _assemble(outs, len(q), *own)


def _bias(table: Tensor, row: Run, h: int, column: Run, w: int, kernel: int | None) -> Tensor:
    """The bias of the tiles of a rectangle, all alike: (1, heads, queries, keys)."""
    y, bias_y = _relative(row, h, kernel, table)
    x, bias_x = _relative(column, w, kernel, table)
    bias = table[:, y[:, None, :, None], x[None, :, None, :]] + (bias_y[:, None, :, None] + bias_x[None, :, None, :])
    return bias.flatten(3).flatten(1, 2)[None]


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


# Cutting and assembling are operators of torch. So cutting has one gradient of the map's size, where autograd adds up
# one for every rectangle; and torch.compile does not look into them: in the C++ that inductor of torch 2.12 writes for
# it, the gradient of an unfold of an unfold runs over the end of its buffer. An axis is given as the start, count, step
# and edge of tiles, for each run.


@torch.library.custom_op('deformable_vit::tiles', mutates_args=())
def _tiles(t: Tensor, rows: list[int], columns: list[int]) -> list[Tensor]:
    """The tiles of all rectangles: (B, heads, H, W, d) -> (B * tiles, heads, height * width, d) each."""
    views = [_view(t, *axes) for axes in _rectangles(rows, columns)]
    # A copy also where a view would do: an operator's result is its own.
    return [t.new_empty(view.shape).copy_(view).flatten(4, 5).flatten(0, 2) for view in views]


@torch.library.custom_op('deformable_vit::assemble', mutates_args=())
def _assemble(tiles: list[Tensor], batch: int, rows: list[int], columns: list[int]) -> Tensor:
    """The map (B, heads, H, W, d) of which these are the tiles; where some overlap, their sum."""
    out = _empty_map(tiles[0], batch, rows, columns)
    # Without overlap every number is written once.
    alone = out.shape[2] * out.shape[3] == sum(r[1] * r[3] * c[1] * c[3] for r, c in _rectangles(rows, columns))
    place = Tensor.copy_ if alone else Tensor.add_
    if not alone:
        out.zero_()
    heads, d = out.shape[1], out.shape[-1]
    for tile, (row, column) in zip(tiles, _rectangles(rows, columns), strict=True):
        tile = tile.view(batch, row[1], column[1], heads, row[3], column[3], d)
        # Every other tile at a time, or every third, ...: those do not overlap.
        apart = [min(count, -(-edge // step)) for _, count, step, edge in (row, column)]
        for i, j in product(*map(range, apart)):
            view = _view(out, _thinned(row, i, apart[0]), _thinned(column, j, apart[1]))
            place(view, tile[:, i :: apart[0], j :: apart[1]])
    return out


def _empty_map(tile: Tensor, batch: int, rows: list[int], columns: list[int]) -> Tensor:
    """(B, heads, H, W, d), in memory heads behind pixels, as they come from a projection and go to one."""
    heads, _, d = tile.shape[1:]
    h, w = (max(start + (count - 1) * step + edge for start, count, step, edge in _quads(a)) for a in (rows, columns))
    return tile.new_empty(batch, h, w, heads, d).permute(0, 3, 1, 2, 4)


def _quads(axis: list[int]) -> list[tuple[int, ...]]:
    return [tuple(axis[i : i + 4]) for i in range(0, len(axis), 4)]


def _rectangles(rows: list[int], columns: list[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    return product(_quads(rows), _quads(columns))


def _thinned(run: tuple[int, ...], first: int, by: int) -> tuple[int, ...]:
    """Of a run of tiles the one at ``first`` and every one ``by`` further."""
    start, count, step, edge = run
    return start + first * step, len(range(first, count, by)), by * step, edge


def _view(t: Tensor, row: tuple[int, ...], column: tuple[int, ...]) -> Tensor:
    """(B, heads, H, W, d) -> (B, rows, columns, heads, height, width, d), a view."""
    (y, n_y, step_y, height), (x, n_x, step_x, width) = row, column
    t = t[:, :, y : y + (n_y - 1) * step_y + height, x : x + (n_x - 1) * step_x + width]
    return t.unfold(2, height, step_y).unfold(3, width, step_x).permute(0, 2, 3, 1, 5, 6, 4)


@_tiles.register_fake
def _(t: Tensor, rows: list[int], columns: list[int]) -> list[Tensor]:
    b, heads, _, _, d = t.shape
    return [t.new_empty(b * r[1] * c[1], heads, r[3] * c[3], d) for r, c in _rectangles(rows, columns)]


@_assemble.register_fake
def _(tiles: list[Tensor], batch: int, rows: list[int], columns: list[int]) -> Tensor:
    return _empty_map(tiles[0], batch, rows, columns)


def _save_tiles(ctx, inputs: tuple, output: list[Tensor]) -> None:
    t, ctx.rows, ctx.columns = inputs
    ctx.batch = len(t)


def _tiles_backward(ctx, grads: list[Tensor]) -> tuple:
    return _assemble([g.contiguous() for g in grads], ctx.batch, ctx.rows, ctx.columns), None, None


_tiles.register_autograd(_tiles_backward, setup_context=_save_tiles)


def _save_assemble(ctx, inputs: tuple, output: Tensor) -> None:
    _, _, ctx.rows, ctx.columns = inputs


def _assemble_backward(ctx, grad: Tensor) -> tuple:
    return _tiles(grad, ctx.rows, ctx.columns), None, None, None


_assemble.register_autograd(_assemble_backward, setup_context=_save_assemble)
