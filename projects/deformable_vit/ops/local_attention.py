"""Attention within shifted windows and within neighborhoods, for feature maps of any size and without padding.

Both separate into two axes: a tile of consecutive rows and columns of queries sees a span of consecutive rows and
columns of keys. Along an axis, equal tiles follow each other in runs: a first tile, many in the middle, a last one. So
a feature map is a few rectangles of equal tiles, and each rectangle is one call of dense attention with one bias.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference
from .backends import select_backend
from .traced_local_attention import traced_neighborhood_attention, traced_window_attention
from .tracing import constant_size, is_tracing

# Queries per tile along an axis of neighborhood attention. A tile of n queries computes n * (n + K - 1) products where
# n * K are needed, but small tiles copy more keys.
_TILE = 7


class Run(NamedTuple):
    """``tiles`` tiles of ``size`` queries from ``start`` on; tile j sees ``span`` keys from ``key + j * size`` on."""

    start: int
    tiles: int
    size: int
    key: int
    span: int


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, shift: int = 0, backend: str | None = None
) -> Tensor:
    """Compute attention within shifted windows (Swin Transformer, https://arxiv.org/abs/2103.14030, section 3.2).

    Windows that start ``shift`` pixels in, with smaller ones at the borders, equal a cyclic shift with its mask.
    Smaller windows also cover feature maps that the window size does not divide.

    Args:
        q: (B, heads, H, W, d).
        k: (B, heads, H, W, d).
        v: (B, heads, H, W, d).
        table: (heads, 2 M - 1, 2 M - 1), the bias by (key - query) + M - 1 in y and x for windows of M x M.
        shift: Rows and columns that the windows are shifted by, 0 to M - 1.
        backend: ``auto`` or ``reference``; see :mod:`.backends`.

    Returns:
        (B, heads, H, W, d).

    Raises:
        ValueError: The shift is out of range.
    """
    window = (constant_size(table, -1) + 1) // 2
    if not 0 <= shift < window:
        raise ValueError(f'shift must be 0 to {window - 1} for windows of {window} x {window}, got {shift}')
    backend = select_backend('window_attention', backend, ('reference',))
    if is_tracing():
        return traced_window_attention(q, k, v, table, shift)
    if backend == 'reference':
        return reference.window_attention(q, k, v, table, shift)
    return _tiled(q, k, v, table, lambda n: window_runs(n, window, shift), kernel=None)


def neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, backend: str | None = None) -> Tensor:
    """Compute attention of each pixel to its K x K neighborhood.

    NAT, CVPR 2023, https://arxiv.org/abs/2204.07143, equations 1 to 3. At a border the neighborhood is shifted inside,
    so that it is always full. An axis shorter than K is its own neighborhood; the official DAT++ implementation pads it
    with zeros instead.

    Args:
        q: (B, heads, H, W, d).
        k: (B, heads, H, W, d).
        v: (B, heads, H, W, d).
        table: (heads, 2 K - 1, 2 K - 1), the bias by (key - query) + K - 1 in y and x; K is odd.
        backend: ``auto`` or ``reference``; see :mod:`.backends`.

    Returns:
        (B, heads, H, W, d).

    Raises:
        ValueError: K is even.
    """
    kernel = (constant_size(table, -1) + 1) // 2
    if kernel % 2 == 0:
        raise ValueError(f'the kernel size of neighborhood attention must be odd, got {kernel}')
    backend = select_backend('neighborhood_attention', backend, ('reference',))
    if is_tracing():  # the reference implementation depends on whether an axis is shorter than K
        return traced_neighborhood_attention(q, k, v, table)
    if backend == 'reference':
        return reference.neighborhood_attention(q, k, v, table)
    return _tiled(q, k, v, table, lambda n: neighborhood_runs(n, kernel), kernel)


@lru_cache
def window_runs(n: int, window: int, shift: int) -> tuple[Run, ...]:
    """Divide an axis of ``n`` pixels into runs of windows."""
    first = min(shift, n)
    count, rest = (n - first) // window, (n - first) % window  # torch.compile has no divmod of sizes
    runs = (
        Run(0, 1, first, 0, first),
        Run(first, count, window, first, window),
        Run(n - rest, 1, rest, n - rest, rest),
    )
    return tuple(run for run in runs if run.tiles and run.size)


@lru_cache
def neighborhood_runs(n: int, kernel: int) -> tuple[Run, ...]:
    """Divide an axis of ``n`` pixels into runs of tiles and their neighborhoods."""
    runs: list[Run] = []
    for start in range(0, n, _TILE):
        size = min(_TILE, n - start)
        # The neighborhoods of the first and last queries, shifted inside the axis.
        key, last = (min(max(i - kernel // 2, 0), max(n - kernel, 0)) for i in (start, start + size - 1))
        span = min(last + kernel, n) - key
        before = runs[-1] if runs else None
        if before and (before.size, before.span, before.key - before.start) == (size, span, key - start):
            runs[-1] = before._replace(tiles=before.tiles + 1)
        else:
            runs.append(Run(start, 1, size, key, span))
    return tuple(runs)


def surplus_pairs(hw: tuple[int, int], kernel: int) -> int:
    """Count the (query, key) products that tiles compute beyond the neighborhoods, on a map of (height, width)."""
    computed, needed = 1, 1
    for n in hw:
        computed *= sum(run.tiles * run.size * run.span for run in neighborhood_runs(n, kernel))
        needed *= n * min(n, kernel)
    return computed - needed


def _tiled(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, runs: Callable[[int], tuple[Run, ...]], kernel: int | None
) -> Tensor:
    """Attend tile by tile; a query sees ``kernel`` keys of its tile's span along an axis, all of them if None."""
    h, w = q.shape[2:4]
    rows, columns = runs(h), runs(w)
    table = table.to(q.dtype)
    queries = [[n for run in axis for n in (run.start, run.tiles, run.size, run.size)] for axis in (rows, columns)]
    keys = [[n for run in axis for n in (run.key, run.tiles, run.size, run.span)] for axis in (rows, columns)]
    biases = _biases(table, rows, h, columns, w, kernel)
    rectangles = zip(_tiles(q, *queries), _tiles(k, *keys), _tiles(v, *keys), biases, strict=True)
    outs = [F.scaled_dot_product_attention(*qkv_and_bias) for qkv_and_bias in rectangles]
    return _assemble(outs, len(q), *queries)


def _biases(
    table: Tensor, rows: Sequence[Run], h: int, columns: Sequence[Run], w: int, kernel: int | None
) -> Iterator[Tensor]:
    """Yield the bias (1, heads, queries, keys) of each rectangle, the same for all of its tiles."""
    along_x = [_bias_along(table, column, w, kernel).movedim(1, -1) for column in columns]
    for row, part in product(rows, along_x):  # (heads, size, span, Ty)
        bias = _bias_along(part, row, h, kernel)  # (heads, size, span, size, span), x before y
        yield bias.permute(0, 3, 1, 4, 2).flatten(3).flatten(1, 2)[None]


def _bias_along(t: Tensor, run: Run, n: int, kernel: int | None) -> Tensor:
    """Return the bias of a tile along one axis: (..., T) -> (..., size, span), of entry key - query + T // 2.

    Equal rows of ``length`` entries that are read as rows of ``length - 1`` move by one entry from row to row. Indexing
    has the same values, but its gradient has to sort the indices, or to add atomically.
    """
    length = run.size + run.span
    first = run.key - run.start - run.size + 1 + t.shape[-1] // 2
    entries = F.pad(t, (-first, first + length - t.shape[-1]))  # a negative number cuts
    equal = entries.unsqueeze(-2).expand(*t.shape[:-1], run.size, length).flatten(-2)
    moved = equal[..., run.size - 1 :][..., : run.size * (length - 1)]
    bias = moved.unflatten(-1, (run.size, length - 1))[..., : run.span]
    if kernel is None:
        return bias
    query = torch.arange(run.size, device=t.device)[:, None] + run.start
    key = torch.arange(run.span, device=t.device) + run.key
    nearest = (query - kernel // 2).clamp(0, max(n - kernel, 0))  # the first neighbor
    return bias.masked_fill((key < nearest) | (key >= nearest + kernel), -torch.inf)


# Tiling and assembling are custom ops. Tiling then has one gradient of the map's size, where autograd would add one for
# every rectangle. And torch.compile does not trace into them: the C++ that inductor of torch 2.12 generates for the
# gradient of nested unfolds writes past the end of its buffer. An axis is given as the start, count, step and size of
# tiles, for each run.


@torch.library.custom_op('deformable_vit::tiles', mutates_args=())
def _tiles(t: Tensor, rows: list[int], columns: list[int]) -> list[Tensor]:
    """Cut (B, heads, H, W, d) into the tiles of each rectangle: (B * tiles, heads, height * width, d)."""
    views = [_view(t, *axes) for axes in _rectangles(rows, columns)]
    # Always a copy: the output of a custom op must not be a view of its input.
    return [t.new_empty(view.shape).copy_(view).flatten(4, 5).flatten(0, 2) for view in views]


@torch.library.custom_op('deformable_vit::assemble', mutates_args=())
def _assemble(tiles: list[Tensor], batch: int, rows: list[int], columns: list[int]) -> Tensor:
    """Return the map (B, heads, H, W, d) of these tiles, and the sum where tiles overlap."""
    out = _empty_map(tiles[0], batch, rows, columns)
    # Without overlap every element is written once.
    disjoint = out.shape[2] * out.shape[3] == sum(r[1] * r[3] * c[1] * c[3] for r, c in _rectangles(rows, columns))
    write = Tensor.copy_ if disjoint else Tensor.add_
    if not disjoint:
        out.zero_()
    heads, d = out.shape[1], out.shape[-1]
    for tile, (row, column) in zip(tiles, _rectangles(rows, columns), strict=True):
        tile = tile.view(batch, row[1], column[1], heads, row[3], column[3], d)
        # Every n-th tile at a time, such that they do not overlap.
        every = [min(count, -(-size // step)) for _, count, step, size in (row, column)]
        for i, j in product(*map(range, every)):
            view = _view(out, _subsample(row, i, every[0]), _subsample(column, j, every[1]))
            write(view, tile[:, i :: every[0], j :: every[1]])
    return out


def _empty_map(tile: Tensor, batch: int, rows: list[int], columns: list[int]) -> Tensor:
    """Return memory (B, heads, H, W, d) with heads after pixels, the layout of the projections before and after."""
    heads, _, d = tile.shape[1:]
    h, w = (max(start + (count - 1) * step + size for start, count, step, size in _quads(a)) for a in (rows, columns))
    return tile.new_empty(batch, h, w, heads, d).permute(0, 3, 1, 2, 4)


def _quads(axis: list[int]) -> list[tuple[int, ...]]:
    return [tuple(axis[i : i + 4]) for i in range(0, len(axis), 4)]


def _rectangles(rows: list[int], columns: list[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    return product(_quads(rows), _quads(columns))


def _subsample(run: tuple[int, ...], first: int, every: int) -> tuple[int, ...]:
    """Return the run of every ``every``-th tile from ``first`` on."""
    start, count, step, size = run
    return start + first * step, len(range(first, count, every)), every * step, size


def _view(t: Tensor, row: tuple[int, ...], column: tuple[int, ...]) -> Tensor:
    """View (B, heads, H, W, d) as tiles (B, rows, columns, heads, height, width, d)."""
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


def _save_tiles(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    t, ctx.rows, ctx.columns = inputs
    ctx.batch = len(t)


def _tiles_backward(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    return _assemble([g.contiguous() for g in grads], ctx.batch, ctx.rows, ctx.columns), None, None


_tiles.register_autograd(_tiles_backward, setup_context=_save_tiles)


def _save_assemble(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, ctx.rows, ctx.columns = inputs


def _assemble_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _tiles(grad, ctx.rows, ctx.columns), None, None, None


_assemble.register_autograd(_assemble_backward, setup_context=_save_assemble)
