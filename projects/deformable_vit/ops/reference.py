"""Slow, obvious forms of the operators, of the same names and signatures: what the fast ones are tested against.

They follow the formulas, or the authors' code where a paper leaves a choice, step by step; autograd keeps every tensor
on the way.
"""

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


def deformable_key_value(x: Tensor, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.deformable_key_value`."""
    b, g, h, w, _ = points.shape
    groups = x.reshape(b * g, -1, *x.shape[-2:])
    read = F.grid_sample(groups, points.flip(-1).reshape(b * g, h, w, 2), align_corners=True)
    return F.linear(read.reshape(b, -1, h * w).transpose(1, 2), weight, bias)


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
    scores = torch.einsum('bhmc, bhnc -> bhmn', q, k) * q.shape[-1] ** -0.5
    if table is not None:
        b, g, n, _ = points.shape
        queries = torch.stack(torch.meshgrid(query_y, query_x, indexing='ij'), dim=-1).view(1, -1, 1, 2)
        displacement = (queries - points.reshape(b * g, 1, n, 2)) / 2  # (B * G, H * W, N, 2)
        tables = table[None].expand(b, -1, -1, -1).reshape(b * g, -1, *table.shape[1:])
        bias = F.grid_sample(tables, displacement.flip(-1), align_corners=True)
        scores = scores + bias.reshape(scores.shape)
    return torch.einsum('bhmn, bhnc -> bhmc', scores.softmax(-1), v)


def window_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, shift: int = 0) -> Tensor:
    """See :func:`deformable_vit.ops.window_attention`: every pair of pixels, and a mask where the windows differ."""
    window = (table.shape[-1] + 1) // 2
    labels = [(torch.arange(n) - shift).div(window, rounding_mode='floor') for n in q.shape[2:4]]
    return _masked(q, k, v, table, *(label[:, None] == label for label in labels))


def neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """See :func:`deformable_vit.ops.neighborhood_attention`: every pair of pixels, and a mask."""
    kernel = (table.shape[-1] + 1) // 2
    visible = []
    for n in q.shape[2:4]:
        axis = torch.zeros(n, n, dtype=torch.bool)
        for i in range(n):
            first = max(0, min(i - kernel // 2, n - kernel))
            axis[i, first : first + kernel] = True
        visible.append(axis)
    return _masked(q, k, v, table, *visible)


def _masked(q: Tensor, k: Tensor, v: Tensor, table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows`` (H, H) and ``columns`` (W, W) say which queries see which keys, both must be true."""
    h, w = q.shape[2:4]
    last = table.shape[-1] - 1
    y, x = ((torch.arange(n) - torch.arange(n)[:, None] + last // 2).clamp(0, last) for n in (h, w))
    bias = table[:, y[:, None, :, None], x[None, :, None, :]].flatten(3).flatten(1, 2)  # (heads, H * W, H * W)
    visible = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1).to(q.device)
    scores = torch.einsum('bhmc, bhnc -> bhmn', q.flatten(2, 3), k.flatten(2, 3)) * q.shape[-1] ** -0.5
    scores = (scores + bias).masked_fill(~visible, -torch.inf)
    return torch.einsum('bhmn, bhnc -> bhmc', scores.softmax(-1), v.flatten(2, 3)).view(*q.shape[:-1], -1)
