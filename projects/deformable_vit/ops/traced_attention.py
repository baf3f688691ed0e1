"""Deformable attention of traced and exported models, for feature maps of any size.

The relative position bias is a product of matrices as in :mod:`.products`: inference engines interpolate with
``grid_sample`` at a fraction of the speed of a product. Scores have the keys before the queries, (keys, query rows,
query columns), which is how the products give the bias: no tensor of the size of the scores is transposed. Groups of
heads follow each other, so that one group's scores are in memory at a time.
"""

import torch
from torch import Tensor

from .interpolation import table_index
from .products import differentiable_weights
from .tracing import constant_size, unflatten


def traced_deformable_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor
) -> Tensor:
    """Compute :func:`.deformable_attention`, in float32 or float64."""
    groups, heads, dtype = constant_size(key_locations, 1), constant_size(q, 1), q.dtype
    with torch.autocast(q.device.type, enabled=False):  # weights in half precision would move the locations
        (weights_y, weights_x), tables = _weights(table, key_locations, query_y, query_x), table.to(query_y.dtype)
        q, k, v = (t.to(tables.dtype) for t in (q * constant_size(q, -1) ** -0.5, k, v))
        q, v, outs = q.transpose(2, 3), v.transpose(2, 3), []
        for group in range(groups):
            of = slice(group * heads // groups, (group + 1) * heads // groups)
            bias = _bias(tables[of], weights_y[:, group], weights_x[:, group])
            scores = k[:, of] @ q[:, of] + bias
            scores = (scores - scores.amax(dim=2, keepdim=True)).exp()  # (B, heads, N, H * W)
            outs.append(v[:, of] @ scores / scores.sum(dim=2, keepdim=True))
        return torch.cat(outs, dim=1).transpose(2, 3).to(dtype)


def _weights(table: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the interpolation weights of rows (B, G, N, H, Ty) and of columns, transposed (B, G, N, Tx, W)."""
    sizes = constant_size(table, 1), constant_size(table, 2)
    y, x = (
        differentiable_weights(table_index(query - key_locations[..., i : i + 1], size), size)
        for i, (query, size) in enumerate(zip((query_y, query_x), sizes, strict=True))
    )
    return y, x.transpose(3, 4)


def _bias(tables: Tensor, weights_y: Tensor, weights_x: Tensor) -> Tensor:
    """Return the bias (B, heads, N, H * W) of a group.

    Args:
        tables: (heads, Ty, Tx).
        weights_y: (B, N, H, Ty).
        weights_x: (B, N, Tx, W).
    """
    read = weights_y.flatten(1, 2).unsqueeze(1) @ tables  # (B, heads, N * H, Tx)
    return (unflatten(read, 2, weights_y.shape[1:3]) @ weights_x.unsqueeze(1)).flatten(3)
