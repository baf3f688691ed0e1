"""Global attention: dense, and deformable with a continuous relative position bias.

Dense: Vaswani et al., https://arxiv.org/abs/1706.03762, equation 1. Deformable: Xia et al., DAT, CVPR 2022,
https://arxiv.org/abs/2201.00520, section 3.2; official implementation: https://github.com/LeapLabTHU/DAT.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from . import reference
from .backends import select_backend
from .interpolation import table_index
from .products import product_attention
from .separable import separable_attention
from .traced_attention import traced_deformable_attention
from .tracing import is_tracing, unflatten
from .triton_attention import fused_attention

# Elements of the score matrix that the chunked backend holds at a time: 64 MiB in float32, small beside a detector's
# feature maps and large enough for full speed.
MAX_SCORES = 2**24


def dense_attention(q: Tensor, k: Tensor, v: Tensor, backend: str | None = None) -> Tensor:
    """Return softmax(Q K^T / sqrt(d)) V.

    Args:
        q: (B, heads, M, d).
        k: (B, heads, N, d).
        v: (B, heads, N, d).
        backend: ``auto`` or ``reference``; see :mod:`.backends`.

    Returns:
        (B, heads, M, d).
    """
    if select_backend('dense_attention', backend, ('reference',)) == 'reference':
        return reference.dense_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def _sdpa_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_args: Any, **_kwargs: Any) -> int:
    return 2 * math.prod(q[:3]) * k[2] * (q[3] + v[3])


# For torch's counter, which knows the fused attention of CUDA but not that of the CPU.
FLOP_FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa_flops}


def deformable_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    key_locations: Tensor,
    query_y: Tensor,
    query_x: Tensor,
    backend: str | None = None,
) -> Tensor:
    """Return softmax(Q K^T / sqrt(d) + bias) V with a relative position bias read between the entries of a table.

    The bias of a query and a key is the table at (query - key) / 2, where -1 and 1 are the centers of the table's
    corner entries: bilinear, zero outside. Autograd keeps no tensor of size queries x keys beyond one chunk.

    Args:
        q: (B, heads, H * W, d), queries in row-major order.
        k: (B, heads, N, d).
        v: (B, heads, N, d).
        table: (heads, Ty, Tx).
        key_locations: (B, G, N, 2), normalized (y, x) in [-1, 1] of the keys of each group of heads; G divides
            ``heads``.
        query_y: (H,), normalized coordinates of the query rows.
        query_x: (W,), normalized coordinates of the query columns.
        backend: ``auto``, ``reference``, ``chunked``, ``products``, ``separable`` or ``triton``; see :mod:`.backends`.

    Returns:
        (B, heads, H * W, d).

    Raises:
        ValueError: The backend ``triton`` is named, and does not run here or with these arguments.
    """
    available = 'reference', 'chunked', 'products', 'separable', 'triton'
    backend = select_backend('deformable_attention', backend, available)
    if backend == 'reference':
        return reference.deformable_attention(q, k, v, table, key_locations, query_y, query_x)
    if backend == 'auto' and is_tracing():
        args = q, k, v, table, key_locations, query_y, query_x
        if torch.is_grad_enabled():  # torch.jit.trace records with gradients
            return recompute_in_backward(traced_deformable_attention, *args, use_reentrant=False)
        return traced_deformable_attention(*args)
    if backend == 'triton':
        return fused_attention(q, k, v, table, key_locations, query_y, query_x)
    if backend == 'products' or (backend == 'auto' and q.device.type != 'cpu'):
        return product_attention(q, k, v, table, key_locations, query_y, query_x)
    # Inputs that fit one chunk are faster by grid_sample: 28 x 28 queries and 12 heads take 0.6 of the time.
    is_large = q.shape[:3].numel() * k.shape[2] > MAX_SCORES
    if backend == 'separable' or (backend == 'auto' and is_large):
        y = table_index(query_y - key_locations[..., :1], table.shape[1])
        x = table_index(query_x - key_locations[..., 1:], table.shape[2])
        return separable_attention(q, k, v, table, y, x)[0].to(q.dtype)
    return chunked_attention(q, k, v, table, key_locations, query_y, query_x)


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    key_locations: Tensor,
    query_y: Tensor,
    query_x: Tensor,
    max_scores: int = MAX_SCORES,
) -> Tensor:
    """Compute :func:`deformable_attention` by torch's attention, with the bias of a chunk of query rows as its mask.

    ``max_scores`` bounds the elements of a chunk's score matrix; a chunk has at least one row. Backward recomputes the
    chunks.
    """
    h, w = len(query_y), len(query_x)
    rows = max(1, max_scores // max(1, q.shape[0] * q.shape[1] * w * k.shape[2]))
    if rows >= h:
        bias = relative_position_bias(table, key_locations, query_y, query_x)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
    outs = []
    for start in range(0, h, rows):
        part = q[:, :, start * w : (start + rows) * w]
        args = part, k, v, table, key_locations, query_y[start : start + rows], query_x, max_scores
        if torch.is_grad_enabled():
            outs.append(recompute_in_backward(chunked_attention, *args, use_reentrant=False))
        else:
            outs.append(chunked_attention(*args))
    return torch.cat(outs, dim=2)


def relative_position_bias(table: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor) -> Tensor:
    """Return the bias (B, heads, H * W, N) of :func:`deformable_attention`, of the same arguments."""
    b, g, n, _ = key_locations.shape
    h, w = query_y.shape[0], query_x.shape[0]
    key_y, key_x = key_locations.flatten(0, 1).unbind(-1)  # (B * G, N) each
    y = (query_y[:, None, None] - key_y[:, None, None]) / 2  # (B * G, H, 1, N)
    x = (query_x[:, None] - key_x[:, None, None]) / 2  # (B * G, 1, W, N)
    grid = torch.stack(torch.broadcast_tensors(x, y), dim=-1).view(b * g, h * w, n, 2)
    tables = unflatten(table.to(key_locations.dtype), 0, (g, -1)).repeat(b, 1, 1, 1)  # (B * G, heads / G, Ty, Tx)
    return F.grid_sample(tables, grid, align_corners=True).view(b, -1, h * w, n)
