"""The products backend of deformable attention, for GPUs: the bias as matrix products, then torch's attention.

For a key, the bias of all queries is A T B': the table T between the linear interpolation weights of the query rows and
of the query columns (see :mod:`.separable`). So the gradients are products too: nothing is gathered, and nothing is
added atomically into a table of a few thousand entries, as the backward of ``grid_sample`` does four times a score. No
size or value leaves the device. Not yet measured on a GPU.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from .coordinates import without_autocast
from .interpolation import interpolation_slopes, interpolation_weights, table_index
from .tracing import is_tracing, unflatten

# Elements of the score matrix of a chunk: 64 MiB in float32.
MAX_SCORES = 2**24


class _Weights(torch.autograd.Function):
    """Interpolation weights with the one-sided slopes of ``grid_sample``; only the indices are kept for backward."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = size
        return interpolation_weights(index, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return (grad * interpolation_slopes(index, ctx.size)).sum(-1), None


def differentiable_weights(index: Tensor, size: int) -> Tensor:
    """Return :func:`.interpolation_weights` with a gradient; a traced model holds their operations."""
    return interpolation_weights(index, size) if is_tracing() else _Weights.apply(index, size)


def product_bias(table: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor) -> Tensor:
    """Return the bias (B, heads, H * W, N) of :func:`.deformable_attention`, of the same arguments."""
    b, groups = key_locations.shape[:2]
    tables = unflatten(table, 0, (groups, -1)).repeat(b, 1, 1, 1)
    bias = _bias(tables, key_locations.flatten(0, 1), query_y, query_x).flatten(2, 3)
    return unflatten(bias, 0, (b, groups)).flatten(1, 2)


def _bias(tables: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor) -> Tensor:
    """Return the bias (groups, heads, H, W, N); a group has its tables (heads, Ty, Tx) and key locations (N, 2).

    Its memory is that of (groups, N, H, heads, W), as the products give it.
    """
    heads, table_h, table_w = tables.shape[1:]
    with without_autocast(tables):  # weights in half precision would move the locations
        # (groups, N, H, Ty) and (groups, N, W, Tx)
        y = differentiable_weights(table_index(query_y - key_locations[..., :1], table_h), table_h)
        x = differentiable_weights(table_index(query_x - key_locations[..., 1:], table_w), table_w)
        # For all keys and heads the table read along y, then along x.
        read = y.flatten(1, 2) @ tables.to(y.dtype).transpose(1, 2).flatten(2)  # (groups, N * H, heads * Tx)
        read = unflatten(unflatten(read, 1, (-1, query_y.shape[0])), 3, (heads, table_w)).flatten(2, 3)
        bias = read @ x.transpose(2, 3)  # (groups, N, H * heads, W)
    return unflatten(bias, 2, (-1, heads)).permute(0, 3, 2, 4, 1)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, tables: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor
) -> Tensor:
    """Compute attention of (groups, heads, H * W or N, d) with the bias of :func:`_bias` as the mask."""
    bias = _bias(tables, key_locations, query_y, query_x)
    # One pass over memory moves the keys last and converts; in the same dtype `to` would leave them first.
    mask = bias.to(q.dtype, memory_format=torch.contiguous_format).contiguous().flatten(2, 3)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    key_locations: Tensor,
    query_y: Tensor,
    query_x: Tensor,
    max_scores: int = MAX_SCORES,
) -> Tensor:
    """Compute :func:`.deformable_attention` by chunks of groups and, where one group is too large, of query rows.

    All rows of a group share the weights along x, so a chunk has as few groups and as many rows as fit. ``max_scores``
    bounds the elements of a chunk's score matrix; a chunk has at least one row. Backward recomputes the chunks.
    """
    (b, groups, n, _), (h, w) = key_locations.shape, (len(query_y), len(query_x))
    # (B * groups, heads of a group, ...) each
    q, k, v = (t.unflatten(1, (groups, -1)).flatten(0, 1) for t in (q, k, v))
    tables, locations = table.unflatten(0, (groups, -1)).repeat(b, 1, 1, 1), key_locations.flatten(0, 1)
    row = q.shape[1] * max(w, table.shape[2]) * n  # elements of the bias of a row, or of the table read along y
    count, rows = max(1, max_scores // (row * h)), max(1, min(h, max_scores // row))
    if count >= len(q) and rows == h:
        out = _attend(q, k, v, tables, locations, query_y, query_x)
    else:
        chunks = zip(*(t.split(count) for t in (q, k, v, tables, locations)), strict=True)
        out = torch.cat([_attend_by_rows(chunk, query_y, query_x, rows) for chunk in chunks])
    return out.unflatten(0, (b, groups)).flatten(1, 2)


def _attend_by_rows(chunk: tuple[Tensor, ...], query_y: Tensor, query_x: Tensor, rows: int) -> Tensor:
    """Compute :func:`_attend` of a chunk's tensors for ``rows`` query rows at a time, recomputed in backward."""
    q, *others = chunk
    outs = []
    for part, y in zip(q.split(rows * len(query_x), dim=2), query_y.split(rows), strict=True):
        args = part, *others, y, query_x
        if torch.is_grad_enabled():
            outs.append(recompute_in_backward(_attend, *args, use_reentrant=False))
        else:
            outs.append(_attend(*args))
    return torch.cat(outs, dim=2)
