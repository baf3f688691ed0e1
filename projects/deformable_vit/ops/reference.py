"""Slow, obvious forms of the operators, of the same names and signatures: what the fast ones are tested against.

They follow the formulas, or the authors' code where a paper leaves a choice, step by step; autograd keeps every tensor
on the way.
"""

from collections.abc import Callable
from functools import reduce, wraps

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(x: Tensor, points: Tensor) -> Tensor:
    """(B, C, H, W) read at (B, ..., 2) points (y, x) in pixels -> (B, C, ...): bilinear, zero outside the map."""
    h, w = x.shape[-2:]
    y, x_ = points.flatten(1, -2).unbind(-1)  # (B, P) each
    top, left = y.floor(), x_.floor()
    out = x.new_zeros(x.shape[0], x.shape[1], y.shape[1])
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = top + dy, left + dx
            share = (1 - (y - row).abs()) * (1 - (x_ - column).abs())
            inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
            index = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).long()
            values = x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1))
            out = out + values * (share * inside)[:, None]
    return out.view(*x.shape[:2], *points.shape[1:-1])


def _in_dtype_of_coordinates(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute in the widest dtype of the arguments, which is that of the coordinates.

    The result is in the dtype of the first argument, or of autocast where that is on.
    """

    @wraps(operator)
    def widened(*args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        given = [t for t in (*args, *kwargs.values()) if t is not None]
        dtype = reduce(torch.promote_types, [t.dtype for t in given])
        cast = [None if t is None else t.to(dtype) for t in args]
        device = given[0].device.type
        result = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else given[0].dtype
        with torch.autocast(device, enabled=False):
            out = operator(*cast, **{key: None if t is None else t.to(dtype) for key, t in kwargs.items()})
        return out.to(result)

    return widened


@_in_dtype_of_coordinates
def deformable_patch_projection(x: Tensor, boxes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.deformable_patch_projection`."""
    k, (h, w) = weight.shape[-1], x.shape[-2:]
    x0, y0, x1, y1 = boxes.unbind(1)
    read = []
    for j in range(k):
        for i in range(k):
            share_y, share_x = (n / (k - 1) if k > 1 else 0.0 for n in (j, i))
            y, x_ = y0 + (y1 - y0) * share_y, x0 + (x1 - x0) * share_x
            read.append(sample(x, torch.stack([y * h - 0.5, x_ * w - 0.5], dim=-1)))
    return torch.einsum('pbchw, dcp -> bdhw', torch.stack(read), weight.flatten(2)) + bias[:, None, None]


@_in_dtype_of_coordinates
def deformable_key_value(x: Tensor, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.deformable_key_value`."""
    b, g, h, w, _ = points.shape
    groups = x.reshape(b * g, -1, *x.shape[-2:])
    read = F.grid_sample(groups, points.flip(-1).reshape(b * g, h, w, 2), align_corners=True)
    return F.linear(read.reshape(b, -1, h * w).transpose(1, 2), weight, bias)


@_in_dtype_of_coordinates
def deformable_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None = None,
    points: Tensor | None = None,
    query_y: Tensor | None = None,
    query_x: Tensor | None = None,
) -> Tensor:
    """See :func:`deformable_vit.ops.deformable_attention`."""
    if table is None:
        return dense_attention(q, k, v)
    scores = torch.einsum('bhmc, bhnc -> bhmn', q, k) * q.shape[-1] ** -0.5
    b, g, n, _ = points.shape
    queries = torch.stack(torch.meshgrid(query_y, query_x, indexing='ij'), dim=-1).view(1, -1, 1, 2)
    displacement = (queries - points.reshape(b * g, 1, n, 2)) / 2  # (B * G, H * W, N, 2)
    tables = table[None].expand(b, -1, -1, -1).reshape(b * g, -1, *table.shape[1:])
    bias = F.grid_sample(tables, displacement.flip(-1), align_corners=True)
    scores = scores + bias.reshape(scores.shape)
    return torch.einsum('bhmn, bhnc -> bhmc', scores.softmax(-1), v)


def dense_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.dense_attention`."""
    scores = torch.einsum('bhmc, bhnc -> bhmn', q, k) * q.shape[-1] ** -0.5
    return torch.einsum('bhmn, bhnc -> bhmc', scores.softmax(-1), v)


def window_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, shift: int = 0) -> Tensor:
    """See :func:`deformable_vit.ops.window_attention`: whole windows over a padded map, and a mask over the padding."""
    h, w = q.shape[2:4]
    window = (table.shape[-1] + 1) // 2
    first = -shift % window  # rows and columns before the map, so that windows begin shift pixels in
    last_y, last_x = (-(first + n) % window for n in (h, w))
    q, k, v = (
        F.pad(t, (0, 0, first, last_x, first, last_y))
        .unflatten(3, (-1, window))
        .unflatten(2, (-1, window))  # (B, heads, rows, window, columns, window, d)
        .permute(0, 2, 4, 1, 3, 5, 6)
        .flatten(4, 5)
        for t in (q, k, v)
    )
    inside = F.pad(torch.ones(h, w, dtype=torch.bool, device=q.device), (first, last_x, first, last_y))
    inside = inside.unflatten(1, (-1, window)).unflatten(0, (-1, window)).transpose(1, 2).flatten(2)
    place = torch.arange(window, device=q.device)
    offset = place - place[:, None] + window - 1  # key - query
    bias = table[:, offset[:, None, :, None], offset[None, :, None, :]].flatten(3).flatten(1, 2)
    scores = torch.einsum('brchmd, brchnd -> brchmn', q, k) * q.shape[-1] ** -0.5 + bias
    scores = scores.masked_fill(~inside[:, :, None, None, :], -torch.inf)
    out = torch.einsum('brchmn, brchnd -> brchmd', scores.softmax(-1), v).unflatten(4, (window, window))
    out = out.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
    return out[:, :, first : first + h, first : first + w]


def neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.neighborhood_attention`: the keys of every pixel side by side."""
    kernel, last = (table.shape[-1] + 1) // 2, table.shape[-1] - 1
    near = []  # along each axis, the keys of a query: (n, kernel)
    for n in q.shape[2:4]:
        query = torch.arange(n, device=q.device)
        first = (query - kernel // 2).clamp(0, max(n - kernel, 0))
        near.append(first[:, None] + torch.arange(min(kernel, n), device=q.device))
    y, x = near
    keys, values = (t[:, :, y[:, None, :, None], x[None, :, None, :]].flatten(4, 5) for t in (k, v))
    offset_y, offset_x = (axis - torch.arange(len(axis), device=q.device)[:, None] + last // 2 for axis in near)
    bias = table[:, offset_y[:, None, :, None], offset_x[None, :, None, :]].flatten(3)  # (heads, H, W, keys)
    scores = torch.einsum('bhyxd, bhyxnd -> bhyxn', q, keys) * q.shape[-1] ** -0.5 + bias
    return torch.einsum('bhyxn, bhyxnd -> bhyxd', scores.softmax(-1), values)
