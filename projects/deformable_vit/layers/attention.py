"""Spatial-reduction attention: every pixel attends to a coarser map of keys and values.

Pyramid Vision Transformer (ICCV 2021, https://arxiv.org/abs/2102.12122), section 3.2, and its linear form from PVT v2
(CVMJ 2022, https://arxiv.org/abs/2106.13797), section 3.1.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import dense_attention, map_to_tokens, tokens_to_map


class SpatialReductionAttention(nn.Module):
    """Multi-head attention whose keys and values come from the map reduced ``sr_ratio`` times in each direction.

    Args:
        dim: Channels.
        num_heads: Heads; must divide ``dim``.
        sr_ratio: Edge of the square of pixels that one key and value summarise. Rows and columns that do not fill a
            square are left out, as in the authors' code. 1 is plain attention.
    """

    def __init__(self, dim: int, num_heads: int, sr_ratio: int = 1) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self._build_reduction(dim)

    def _build_reduction(self, dim: int) -> None:
        if self.sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, self.sr_ratio, stride=self.sr_ratio)
            self.norm = nn.LayerNorm(dim)

    def reduce(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, M, C): the tokens that keys and values are projected from."""
        if self.sr_ratio == 1:
            return x
        return self.norm(map_to_tokens(self.sr(tokens_to_map(x, hw))))

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C) with N = H * W, or one more at ``sr_ratio`` 1, where order does not matter."""
        qkv = self.q(x), *self.kv(self.reduce(x, hw)).chunk(2, dim=-1)
        x = dense_attention(*(t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in qkv))  # (B, heads, N, d)
        return self.proj(x.transpose(1, 2).flatten(2))


class LinearSpatialReductionAttention(SpatialReductionAttention):
    """Attention to a map of 7 x 7 whatever the input size, so that its cost is linear in the number of pixels.

    ``sr_ratio`` is not used: every stage pools, the last one too.
    """

    pool_size = 7

    def _build_reduction(self, dim: int) -> None:
        self.sr = nn.Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim)

    def reduce(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, 49, C)."""
        pooled = F.adaptive_avg_pool2d(tokens_to_map(x, hw), self.pool_size)
        return F.gelu(self.norm(map_to_tokens(self.sr(pooled))))
