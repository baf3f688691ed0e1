"""Deformable attention with keys and values at places that the queries choose (DAT, CVPR 2022, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from ..ops import (
    coordinate_dtype,
    deformable_attention,
    deformable_key_value,
    key_grid,
    key_spacing,
    query_coordinates,
    tokens_to_map,
)


class OffsetNet(nn.Module):
    """Where the keys of one group lie beside their grid: depthwise convolution, norm, GELU, projection to (y, x).

    Args:
        dim: Channels of a group.
        kernel_size: Of the depthwise convolution, which also steps from the queries' grid to the keys'.
        stride: Queries per key along an axis.
    """

    def __init__(self, dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        # As the authors have it: none where the kernels tile the map.
        padding = 0 if kernel_size == stride else kernel_size // 2
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, stride, padding, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> (B, H', W', 2), float32 or better: half-precision offsets lose pixels."""
        if self.dwconv.padding == (0, 0):  # a map smaller than the kernel still has one key
            kernel = self.dwconv.kernel_size[0]
            x = F.pad(x, (0, max(kernel - x.shape[-1], 0), 0, max(kernel - x.shape[-2], 0)))
        x = F.gelu(self.norm(self.dwconv(x).permute(0, 2, 3, 1)))
        dtype = coordinate_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(dtype), self.proj.weight.to(dtype))


class DeformableAttention(nn.Module):
    """Every pixel attends to points that the picture places, the same for all queries, other ones for each group.

    Args:
        dim: Channels.
        num_heads: Heads; must divide ``dim``.
        num_groups: Groups of heads that place their keys alone; must divide ``num_heads``.
        stride: Pixels per key along an axis.
        offset_kernel: Kernel of the convolution that sees where a key should go.
        offset_range: How far a key may go, in half distances of keys; -1: anywhere, but it stays on the map.
        coordinates: ``centers`` or ``corners``, see :mod:`deformable_vit.ops.coordinates`.
        table_size: Edge, in entries, of the table of relative position biases; None: no bias.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_groups: int,
        stride: int = 1,
        offset_kernel: int = 5,
        offset_range: float = 2,
        coordinates: str = 'centers',
        table_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_groups = num_groups
        self.offset_range = offset_range
        self.coordinates = coordinates
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.offset = OffsetNet(dim // num_groups, offset_kernel, stride)
        if table_size is None:
            self.rpe_table = None
        else:
            self.rpe_table = nn.Parameter(torch.zeros(num_heads, *table_size))
            trunc_normal_(self.rpe_table, std=0.01)

    def points(self, q: Tensor, hw: tuple[int, int]) -> Tensor:
        """Queries (B, H * W, C) -> places of the keys (B, groups, H', W', 2), (y, x), -1 and 1 at the corner pixels."""
        groups = tokens_to_map(q, hw).unflatten(1, (self.num_groups, -1)).flatten(0, 1)
        offsets = self.offset(groups)
        h, w = offsets.shape[1:3]
        grid = key_grid(h, w, self.coordinates, offsets)
        if self.offset_range >= 0:
            points = grid + offsets.tanh() * key_spacing(h, w, self.coordinates, offsets) * self.offset_range
        else:
            points = (grid + offsets).clamp(-1, 1)
        return points.unflatten(0, (-1, self.num_groups))

    def key_size(self, hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the grid of keys on a map of (height, width)."""
        conv = self.offset.dwconv
        kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
        h, w = (max(n + 2 * padding - kernel, 0) // stride + 1 for n in hw)
        return h, w

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, H * W, C) -> (B, H * W, C)."""
        q = self.q(x)
        points = self.points(q, hw)
        weight, bias = torch.cat([self.k.weight, self.v.weight]), torch.cat([self.k.bias, self.v.bias])
        kv = deformable_key_value(tokens_to_map(x, hw), points, weight, bias)
        qkv = q, *kv.chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in qkv)  # (B, heads, N, d) each
        if self.rpe_table is None:
            out = deformable_attention(q, k, v)
        else:
            axes = (query_coordinates(n, self.coordinates, points) for n in hw)
            out = deformable_attention(q, k, v, self.rpe_table, points.flatten(2, 3), *axes)
        return self.proj(out.transpose(1, 2).flatten(2))
