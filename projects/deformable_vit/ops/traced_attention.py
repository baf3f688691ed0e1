"""Deformable attention of traced and exported models, for feature maps of any size.

The relative position bias is a product of matrices as in :mod:`.products`: inference engines interpolate with
``grid_sample`` at a fraction of the speed of a product. Scores have the keys before the queries, (keys, query rows,
query columns), which is how the products give the bias: no tensor of the size of the scores is transposed. Groups of
heads follow each other, so that one group's scores are in memory at a time.
"""

import torch
from torch import Tensor

from .coordinates import without_autocast
from .interpolation import interpolation_weights, table_index
from .tracing import constant_size, unflatten


def traced_deformable_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, key_locations: Tensor, query_y: Tensor, query_x: Tensor
) -> Tensor:
    """Compute :func:`.deformable_attention`, in float32 or float64."""
    groups, heads, dtype = constant_size(key_locations, 1), constant_size(q, 1), q.dtype
    with without_autocast(q):  # weights in half precision would move the locations
        tables = table.to(query_y.dtype)
        q, k, v = (t.to(tables.dtype) for t in (q * constant_size(q, -1) ** -0.5, k, v))
        q, v, outs = q.transpose(2, 3), v.transpose(2, 3), []
        # (B, G, N, H) and (B, G, N, W), of all groups at once: the fewer nodes, the faster is the export.
        y = table_index(query_y - key_locations[..., :1], constant_size(table, 1))
        x = table_index(query_x - key_locations[..., 1:], constant_size(table, 2))
        for group in range(groups):
            of = slice(group * heads // groups, (group + 1) * heads // groups)
            scores = k[:, of] @ q[:, of] + _bias(tables[of], y[:, group], x[:, group])
            scores = (scores - scores.amax(dim=2, keepdim=True)).exp()  # (B, heads, N, H * W)
            outs.append(v[:, of] @ scores / scores.sum(dim=2, keepdim=True))
        return torch.cat(outs, dim=1).transpose(2, 3).to(dtype)


def _bias(tables: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return the bias (B, heads, N, H * W) of a group.

    Args:
        tables: (heads, Ty, Tx).
        y: (B, N, H), for each key and query row the fractional row of the tables.
        x: (B, N, W), for each key and query column the fractional column of the tables.
    """
    # (B, N, H, Ty) and (B, N, Tx, W); that the entries come where the products want them saves copies.
    weights_y = interpolation_weights(y, constant_size(tables, 1))
    weights_x = interpolation_weights(x, constant_size(tables, 2), dim=-2)
    read = weights_y.flatten(1, 2).unsqueeze(1) @ tables  # (B, heads, N * H, Tx)
    return (unflatten(read, 2, y.shape[1:]) @ weights_x.unsqueeze(1)).flatten(3)
