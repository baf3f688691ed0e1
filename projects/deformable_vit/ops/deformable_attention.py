"""Deformable attention: queries on a regular grid, keys and values read where the picture says.

Xia et al., DAT, CVPR 2022, https://arxiv.org/abs/2201.00520, section 3.2; the authors' code is at
https://github.com/LeapLabTHU/DAT.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .biased_attention import biased_attention
from .deform_conv import deform_conv_at
from .dense_attention import dense_attention
from .paths import current_path, with_reference

# Numbers of the score matrix that are worked on at a time. 64 MiB in float32: small beside the maps of a detector,
# large enough for full speed.
_BLOCK = 2**24


@with_reference
def deformable_key_value(x: Tensor, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Read a map at given points, in groups of channels, and project what was read to keys and values.

    Args:
        x: (B, C, H, W).
        points: (B, G, H', W', 2), for each of G groups of channels (y, x), where -1 and 1 are the centres of the corner
            pixels. Reading is bilinear, and zero outside the map.
        weight: (D, C), projecting to keys and values side by side.
        bias: (D,).

    Returns:
        (B, H' * W', D).
    """
    extent = torch.tensor([x.shape[-2] - 1, x.shape[-1] - 1], dtype=points.dtype, device=points.device)
    positions = ((points + 1) / 2 * extent).permute(0, 1, 4, 2, 3)
    projected = deform_conv_at(x, positions.unsqueeze(2), weight[..., None, None])
    return projected.flatten(2).transpose(1, 2) + bias.to(projected.dtype)


@with_reference
def deformable_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor | None = None,
    points: Tensor | None = None,
    query_y: Tensor | None = None,
    query_x: Tensor | None = None,
) -> Tensor:
    """softmax(Q K' / sqrt(d) + bias) V with a relative position bias that is read between the entries of a table.

    The bias of a query and a key is the table at (query - key) / 2, where -1 and 1 are the centres of the table's
    corner entries: bilinear, zero outside. No tensor of size queries x keys is kept for backward beyond one block of
    query rows.

    Args:
        q: (B, heads, H * W, d), queries in row-major order.
        k: (B, heads, N, d).
        v: (B, heads, N, d).
        table: (heads, Ty, Tx), or None for no bias; then the rest is not needed.
        points: (B, G, N, 2) places of the keys, (y, x) in [-1, 1]; G divides the number of heads.
        query_y: (H,) places of the rows of queries.
        query_x: (W,) places of the columns of queries.

    Returns:
        (B, heads, H * W, d).
    """
    if table is None:
        return dense_attention(q, k, v)
    path = current_path()
    if path == 'auto':
        # What fits one block is read faster by grid_sample: at 28 x 28 and 12 heads in 0.6 of the time.
        large = q.shape[:3].numel() * k.shape[2] > _BLOCK
        path = 'products' if q.device.type == 'cpu' and large else 'blocks'
    attend = by_matrix_products if path == 'products' else by_blocks
    return attend(q, k, v, table, points, query_y, query_x)


def by_matrix_products(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, query_y: Tensor, query_x: Tensor
) -> Tensor:
    """:func:`deformable_attention` with the bias as products of matrices; for large maps on a CPU."""
    y = _table_position(query_y - points[..., :1], table.shape[1])
    x = _table_position(query_x - points[..., 1:], table.shape[2])
    return biased_attention(q, k, v, table, y, x)


def by_blocks(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, query_y: Tensor, query_x: Tensor
) -> Tensor:
    """:func:`deformable_attention` by torch's attention, its mask the bias of some query rows at a time."""
    h, w = len(query_y), len(query_x)
    rows = max(1, _BLOCK // (q.shape[0] * q.shape[1] * w * k.shape[2]))
    if rows >= h:
        return _attend(q, k, v, table, points, query_y, query_x)
    outs = []
    for start in range(0, h, rows):
        part = q[:, :, start * w : (start + rows) * w]
        args = part, k, v, table, points, query_y[start : start + rows], query_x
        outs.append(checkpoint(_attend, *args, use_reentrant=False) if torch.is_grad_enabled() else _attend(*args))
    return torch.cat(outs, dim=2)


def _table_position(displacement: Tensor, size: int) -> Tensor:
    """A query's distance from a key, -2 to 2 from end to end of a map -> entries from the first of an axis."""
    return (displacement / 2 + 1) / 2 * (size - 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, table: Tensor, points: Tensor, query_y: Tensor, query_x: Tensor) -> Tensor:
    bias = relative_position_bias(table, points, query_y, query_x)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


def relative_position_bias(table: Tensor, points: Tensor, query_y: Tensor, query_x: Tensor) -> Tensor:
    """(heads, Ty, Tx), (B, G, N, 2), (H,), (W,) -> (B, heads, H * W, N); see :func:`deformable_attention`."""
    b, g, n, _ = points.shape
    h, w = len(query_y), len(query_x)
    key_y, key_x = points.flatten(0, 1).unbind(-1)  # (B * G, N) each
    y = (query_y[:, None, None] - key_y[:, None, None]) / 2  # (B * G, H, 1, N)
    x = (query_x[:, None] - key_x[:, None, None]) / 2  # (B * G, 1, W, N)
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1).view(b * g, h * w, n, 2)
    tables = table.to(points.dtype).unflatten(0, (g, -1)).repeat(b, 1, 1, 1)  # (B * G, heads / G, Ty, Tx)
    return F.grid_sample(tables, grid, align_corners=True).view(b, -1, h * w, n)
