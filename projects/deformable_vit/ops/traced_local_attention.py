"""Window and neighborhood attention of traced and exported models: equal tiles, for feature maps of any size.

A tile of consecutive queries of an axis sees a span of consecutive keys. All tiles have the same size, span and
relative positions, so that one gather cuts a feature map and one bias serves all tiles. Tiles overlap, or have pixels
beyond the border, which repeat its last pixel, where the size does not divide the axis. What a query does not see is
masked; only the tiles at a border differ in that, so there are few masks.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .tracing import ceil_div, constant_size, shared, sizes_tensor, unflatten


class _Axis(NamedTuple):
    """An axis of n pixels in equal tiles.

    Args:
        queries: (tiles * size,), the pixels of each tile.
        keys: (tiles * span,), the pixels that each tile sees.
        pixels: (n,), where among the queries each pixel is.
        relative: (size, span), key - query, which is the same for all tiles.
        kinds: (tiles,), the mask of each tile.
        masks: (4, size, span), whether a query sees a key, in the first two and the last two tiles.
    """

    queries: Tensor
    keys: Tensor
    pixels: Tensor
    relative: Tensor
    kinds: Tensor
    masks: Tensor


def traced_window_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, shift: int) -> Tensor:
    """Compute :func:`.window_attention`."""
    window = (constant_size(table, -1) + 1) // 2
    return _attend(q, k, v, table, *(_windows(n, window, -shift % window, q.device) for n in q.shape[2:4]))


def traced_neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, tile: int = 7) -> Tensor:
    """Compute :func:`.neighborhood_attention`; ``tile`` is the number of queries per tile along an axis, or more."""
    kernel = (constant_size(table, -1) + 1) // 2
    size = max(tile, kernel // 2 + 1)  # the first tile sees the neighborhood of its first query
    return _attend(q, k, v, table, *(_neighborhoods(n, kernel, size, q.device) for n in q.shape[2:4]))


@shared
def _windows(n: int, window: int, first: int, device: torch.device) -> _Axis:
    """Divide an axis into windows that begin ``first`` pixels before it."""

    def start(tile: Tensor) -> Tensor:
        return tile * window - first

    def visible(_: Tensor, key: Tensor, size: Tensor) -> Tensor:
        return (key >= 0) & (key < size)

    tiles = ceil_div(first + n, window)
    return _divide(n, tiles, window, (0, window), start, visible, torch.arange(n, device=device) + first)


@shared
def _neighborhoods(n: int, kernel: int, size: int, device: torch.device) -> _Axis:
    """Divide an axis into tiles, the last one aligned to its end, that see ``kernel // 2`` pixels to each side."""
    length, tiles = torch.full((), n, dtype=torch.long, device=device), ceil_div(n, size)

    def start(tile: Tensor) -> Tensor:
        return torch.minimum(tile * size, length - size).clamp(min=0)

    def visible(query: Tensor, key: Tensor, length: Tensor) -> Tensor:
        first = torch.minimum((query - kernel // 2).clamp(min=0), (length - kernel).clamp(min=0))
        return (key >= first) & (key < torch.minimum(first + kernel, length))

    pixel = torch.arange(n, device=device)
    tile = pixel // size
    span = -(kernel // 2), size + kernel - 1 - kernel // 2
    return _divide(n, tiles, size, span, start, visible, tile * size + pixel - start(tile))


def _divide(
    n: int,
    tiles: int,
    size: int,
    span: tuple[int, int],
    start: Callable[[Tensor], Tensor],
    visible: Callable[[Tensor, Tensor, Tensor], Tensor],
    pixels: Tensor,
) -> _Axis:
    """Divide an axis of ``n`` pixels into tiles of ``size`` queries.

    Args:
        span: First key and end of the keys of a tile, relative to its first query.
        start: Returns the first query of tiles; it may lie before the axis.
        visible: Returns whether queries, which are on the axis, see keys, which may be beyond it; of the axis's length.
        pixels: Where among the queries of all tiles each pixel is.
    """
    query, key = torch.arange(size, device=pixels.device), torch.arange(*span, device=pixels.device)
    tile, length = torch.arange(tiles, device=pixels.device), torch.full_like(pixels[:1], n)
    starts = start(tile)[:, None]
    queries, keys = (torch.minimum((starts + i).clamp(min=0), length - 1).flatten() for i in (query, key))
    # The tiles 0, 1, tiles - 2 and tiles - 1; all in between are like tile 1.
    kinds = (tile > 0) * torch.maximum(tile.clamp(max=1), tile - (tiles - 4))
    example = start(sizes_tensor((0, 1, tiles - 2, tiles - 1), pixels).clamp(min=0))[:, None, None]
    clipped = torch.minimum((example + query[:, None]).clamp(min=0), length - 1)
    masks = visible(clipped, example + key, length).expand(-1, size, -1)
    return _Axis(queries, keys, pixels, key - query[:, None], kinds, masks)


def _attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor, y: _Axis, x: _Axis) -> Tensor:
    """Attend (B, heads, H, W, d) tile by tile."""
    b, heads, d = q.shape[0], q.shape[1], q.shape[4]
    (rows, columns), last = (axis.kinds.shape[0] for axis in (y, x)), constant_size(table, -1) - 1
    size, span = (constant_size(y.relative, i) for i in (0, 1))
    # What no query sees may be outside of the table.
    index_y, index_x = ((axis.relative + last // 2).clamp(0, last) for axis in (y, x))
    index = index_y[:, None, :, None] * (last + 1) + index_x[None, :, None, :]
    near = y.masks[:, None, :, None, :, None] & x.masks[None, :, None, :, None, :]  # (4, 4, size, size, span, span)
    near = near.flatten(4, 5).flatten(2, 3).flatten(0, 1)
    bias = unflatten(table.to(q.dtype).flatten(1).index_select(1, index.flatten()), 1, near.shape[1:])
    bias = bias.masked_fill(~near[:, None], -torch.inf)  # (16, heads, queries, keys)
    bias = bias.index_select(0, (y.kinds[:, None] * 4 + x.kinds).flatten())
    # Tiles and heads beside each other: torch.onnx takes attention of four axes.
    queries = _tiles(q, y.queries, x.queries, rows, columns, size)
    keys, values = (_tiles(t, y.keys, x.keys, rows, columns, span) for t in (k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.flatten(0, 1))
    out = unflatten(unflatten(out, 2, (size, size)), 1, (rows, columns, heads))
    out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, rows * size, columns * size, heads, d)
    return out.index_select(1, y.pixels).index_select(2, x.pixels).permute(0, 3, 1, 2, 4)


def _tiles(t: Tensor, y: Tensor, x: Tensor, rows: int, columns: int, size: int) -> Tensor:
    """Cut (B, heads, H, W, d) at pixels of the axes into (B, rows * columns * heads, size * size, d)."""
    t = t.permute(0, 2, 3, 1, 4).index_select(1, y).index_select(2, x)
    # Explicit sizes: an inferred one leaves a condition that torch.export cannot prove.
    t = unflatten(unflatten(t, 2, (columns, size)), 1, (rows, size))
    return t.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 3)
