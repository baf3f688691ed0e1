"""What the ops do while a model is traced or exported: sizes stay symbolic, and nothing branches on them.

``torch.jit.trace`` and the ONNX exporter record the operations on one example. A size that leaves torch (as an ``int``,
in a comparison, in ``torch.tensor([h, w])``, as an argument of a custom op) is a constant of the recorded model, which
is then wrong at another size. :func:`is_tracing` selects code without such constants, and default backends that every
tracer knows. Outside of tracing nothing changes.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.jit import TracerWarning  # type: ignore[attr-defined]


def is_recorded_by_jit() -> bool:
    """Return whether ``torch.jit.trace``, which takes numbers for constants, records the current call."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def is_tracing() -> bool:
    """Return whether ``torch.jit.trace``, ``torch.export`` or an ONNX exporter records the current call."""
    return is_recorded_by_jit() or torch.compiler.is_exporting()


def sizes_tensor(sizes: Sequence[int], like: Tensor) -> Tensor:
    """Return sizes as a tensor (n,) with the dtype and device of ``like``; a traced model computes it again."""
    if is_tracing():
        return torch.cat([torch.full((1,), n, dtype=like.dtype, device=like.device) for n in sizes])
    return torch.tensor(sizes, dtype=like.dtype, device=like.device)


def constant_size(t: Tensor, dim: int) -> int:
    """Return a size that is the same for all inputs, such as that of a parameter, as a number.

    It may also be used for a check of the example that a model is traced with.
    """
    if not is_recorded_by_jit():
        return t.shape[dim]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', TracerWarning)
        return int(t.shape[dim])


def at_least(n: Any, minimum: int) -> Any:
    """Return ``max(n, minimum)``, symbolic while tracing."""
    return n.clamp(min=minimum) if isinstance(n, Tensor) else torch.sym_max(n, minimum)


def unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Return ``x.unflatten(dim, sizes)``; the ONNX exporter would take the sizes of that method for constants."""
    if not is_recorded_by_jit():
        return x.unflatten(dim, sizes)
    dim %= x.dim()
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def adaptive_avg_pool2d(x: Tensor, size: int) -> Tensor:
    """Return the means (B, C, size, size) of (B, C, H, W), as torch's function does, which ONNX does not have."""
    if not is_recorded_by_jit():
        return F.adaptive_avg_pool2d(x, size)
    cells = torch.arange(size, device=x.device)[:, None]
    weights = []  # of each row, then of each column, (size, n)
    for n in x.shape[-2:]:
        pixels = torch.arange(n, device=x.device)
        inside = (pixels >= cells * n // size) & (pixels < ((cells + 1) * n + size - 1) // size)
        weights.append(inside.to(x.dtype) / inside.sum(dim=1, keepdim=True))
    return weights[0] @ x @ weights[1].T


def neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, tile: int) -> Tensor:
    """Compute :func:`deformable_vit.ops.neighborhood_attention` with equal tiles, gathered, on a map of any size.

    The last tiles repeat the last query, and every tile sees ``tile + K - 1`` keys along an axis with those outside the
    neighborhood masked: more products than the tiles of the default backend, but as many for every size.

    Args:
        q: (B, heads, H, W, d).
        k: (B, heads, H, W, d).
        v: (B, heads, H, W, d).
        table: (heads, 2 K - 1, 2 K - 1).
        tile: Queries per tile along an axis.
    """
    kernel = (constant_size(table, -1) + 1) // 2
    h, w = q.shape[2:4]
    (query_y, key_y, index_y, near_y), (query_x, key_x, index_x, near_x) = (
        _tiles(n, kernel, tile, q.device) for n in (h, w)
    )
    # (B, heads, rows, columns, tile, tile or span, d), then the tiles of a map beside each other in one axis
    queries = q[:, :, query_y[:, None, :, None], query_x[None, :, None, :]].flatten(4, 5).flatten(2, 3)
    keys, values = (
        t[:, :, key_y[:, None, :, None], key_x[None, :, None, :]].flatten(4, 5).flatten(2, 3) for t in (k, v)
    )
    # (heads, rows, columns, tile, tile, span, span)
    bias = table.to(q.dtype)[:, index_y[:, None, :, None, :, None], index_x[None, :, None, :, None, :]]
    near = near_y[:, None, :, None, :, None] & near_x[None, :, None, :, None, :]
    bias = bias.masked_fill(~near, -torch.inf).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    # Heads beside the batch: attention of all tiles of a head, (B * heads, tiles, queries, d).
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    rows, columns = query_y.shape[0], query_x.shape[0]
    out = unflatten(unflatten(out, 3, (tile, tile)), 2, (rows, columns)).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return out[:, :, :h, :w]


def _tiles(n: int, kernel: int, tile: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Divide an axis of ``n`` pixels into tiles.

    Returns:
        Queries (tiles, tile) and keys (tiles, span) as pixels of the axis; for each query and key the index into the
        table, and whether the key is in the neighborhood, (tiles, tile, span).
    """
    span = tile + kernel - 1
    size = torch.full((), n, dtype=torch.long, device=device)
    start = torch.arange((n + tile - 1) // tile, device=device) * tile
    query = torch.minimum(start[:, None] + torch.arange(tile, device=device), size - 1)
    first_key = torch.minimum((start - kernel // 2).clamp(min=0), (size - span).clamp(min=0))
    key = first_key[:, None] + torch.arange(span, device=device)
    first = torch.minimum((query - kernel // 2).clamp(min=0), (size - kernel).clamp(min=0))[..., None]
    near = (key[:, None] >= first) & (key[:, None] < torch.minimum(first + kernel, size))
    index = (key[:, None] - query[..., None] + kernel - 1).clamp(0, 2 * kernel - 2)
    return query, torch.minimum(key, size - 1), index, near
