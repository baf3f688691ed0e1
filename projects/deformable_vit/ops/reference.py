"""Reference implementations of the ops, with the same names and arguments; the other backends are tested against them.

They follow the formulas step by step, or the official implementation where a paper leaves a choice. Autograd keeps
every intermediate tensor.
"""

from collections.abc import Callable
from functools import reduce, wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from .coordinates import autocast_dtype, without_autocast
from .tracing import constant_size, sizes_tensor, unflatten


def sample(x: Tensor, locations: Tensor) -> Tensor:
    """Read (B, C, H, W) at locations (B, ..., 2), (y, x) in pixels: (B, C, ...), bilinear, zero outside the map."""
    h, w = x.shape[-2:]
    y, x_ = locations.flatten(1, -2).unbind(-1)  # (B, P) each
    top, left = y.floor(), x_.floor()
    out = x.new_zeros(x.shape[0], x.shape[1], y.shape[1])
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = top + dy, left + dx
            weight = (1 - (y - row).abs()) * (1 - (x_ - column).abs())
            inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
            index = (row.clamp(0, h - 1) * w + column.clamp(0, w - 1)).long()
            values = x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1))
            out = out + values * (weight * inside)[:, None]
    return out.view(*x.shape[:2], *locations.shape[1:-1])


def _in_coordinate_dtype(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compute in the widest dtype of the arguments, which is that of the coordinates.

    The result is in the dtype of the first argument, or in that of autocast where it is enabled.
    """

    @wraps(op)
    def widened(*args: Tensor) -> Tensor:
        dtype = reduce(torch.promote_types, [t.dtype for t in args])
        result = autocast_dtype(args[0])
        with without_autocast(args[0]):
            return op(*(t.to(dtype) for t in args)).to(result)

    return widened


@_in_coordinate_dtype
def deformable_patch_projection(x: Tensor, boxes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.deformable_patch_projection`."""
    k, (h, w) = constant_size(weight, -1), x.shape[-2:]
    x0, y0, x1, y1 = boxes.unbind(1)
    samples = []
    for j in range(k):
        for i in range(k):
            step_y, step_x = (n / (k - 1) if k > 1 else 0.0 for n in (j, i))
            y, x_ = y0 + (y1 - y0) * step_y, x0 + (x1 - x0) * step_x
            samples.append(sample(x, torch.stack([y * h - 0.5, x_ * w - 0.5], dim=-1)))
    return torch.einsum('pbchw, dcp -> bdhw', torch.stack(samples), weight.flatten(2)) + bias[:, None, None]


@_in_coordinate_dtype
def deformable_sampling(x: Tensor, locations: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.deformable_sampling`."""
    b, g, h, w, _ = locations.shape
    groups = x.reshape(b * g, -1, *x.shape[-2:])
    extent = sizes_tensor([x.shape[-2] - 1, x.shape[-1] - 1], locations)
    samples = sample(groups, (locations.reshape(b * g, h, w, 2) + 1) / 2 * extent)
    return samples.reshape(b, -1, h * w).transpose(1, 2)


@_in_coordinate_dtype
def deformable_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor
) -> Tensor:
    """See :func:`deformable_vit.ops.deformable_attention`."""
    scores = torch.einsum('bhmc, bhnc -> bhmn', q, k) * q.shape[-1] ** -0.5
    b, g, n, _ = key_locations.shape
    queries = torch.stack(torch.meshgrid(query_y, query_x, indexing='ij'), dim=-1).view(1, -1, 1, 2)
    displacement = (queries - key_locations.reshape(b * g, 1, n, 2)) / 2  # (B * G, H * W, N, 2)
    tables = table[None].expand(b, -1, -1, -1).reshape(b * g, -1, *table.shape[1:])
    bias = F.grid_sample(tables, displacement.flip(-1), align_corners=True)
    scores = scores + bias.reshape(scores.shape)
    return torch.einsum('bhmn, bhnc -> bhmc', scores.softmax(-1), v)


def dense_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.dense_attention`."""
    scores = torch.einsum('bhmc, bhnc -> bhmn', q, k) * q.shape[-1] ** -0.5
    return torch.einsum('bhmn, bhnc -> bhmc', scores.softmax(-1), v)


def window_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, shift: int = 0) -> Tensor:
    """See :func:`deformable_vit.ops.window_attention`: windows over a padded feature map, with the padding masked."""
    h, w = q.shape[2:4]
    window = (constant_size(table, -1) + 1) // 2
    first = -shift % window  # rows and columns of padding before the map, so that windows start shift pixels in
    last_y, last_x = (-(first + n) % window for n in (h, w))
    padded = (F.pad(t, (0, 0, first, last_x, first, last_y)) for t in (q, k, v))
    # (B, heads, rows, window, columns, window, d)
    windows = (unflatten(unflatten(t, 3, (-1, window)), 2, (-1, window)) for t in padded)
    q, k, v = (t.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5) for t in windows)
    inside = F.pad(torch.ones(h, w, dtype=torch.bool, device=q.device), (first, last_x, first, last_y))
    inside = unflatten(unflatten(inside, 1, (-1, window)), 0, (-1, window)).transpose(1, 2).flatten(2)
    pixel = torch.arange(window, device=q.device)
    offset = pixel - pixel[:, None] + window - 1  # key - query
    bias = table[:, offset[:, None, :, None], offset[None, :, None, :]].flatten(3).flatten(1, 2)
    scores = torch.einsum('brchmd, brchnd -> brchmn', q, k) * q.shape[-1] ** -0.5 + bias
    scores = scores.masked_fill(~inside[:, :, None, None, :], -torch.inf)
    out = torch.einsum('brchmn, brchnd -> brchmd', scores.softmax(-1), v)
    out = unflatten(out, 4, (window, window)).permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
    return out[:, :, first : first + h, first : first + w]


def neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.neighborhood_attention`: with the keys gathered for every query."""
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
