"""Spatial-reduction attention (PVT, ICCV 2021, https://arxiv.org/abs/2102.12122, section 3.2)."""

from torch import Tensor, nn

from ..ops import dense_attention, map_to_tokens, tokens_to_map, unflatten


class SpatialReductionAttention(nn.Module):
    """Multi-head attention whose keys and values come from a feature map of ``1 / sr_ratio`` the resolution.

    Args:
        dim: Number of channels.
        num_heads: Number of heads; must divide ``dim``.
        sr_ratio: Pixels per key along each axis. Rows and columns that do not fill a key are dropped, as in the
            official implementation. 1 is plain attention.
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
        """Return the tokens (B, M, C) that keys and values are projected from, for tokens (B, N, C)."""
        if self.sr_ratio == 1:
            return x
        return self.norm(map_to_tokens(self.sr(tokens_to_map(x, hw))))

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Map (B, N, C) to (B, N, C), N = H * W; with ``sr_ratio`` 1 also N = 1 + H * W with a class token."""
        qkv = self.q(x), *self.kv(self.reduce(x, hw)).chunk(2, dim=-1)
        q, k, v = (unflatten(t, -1, (self.num_heads, -1)).transpose(1, 2) for t in qkv)  # (B, heads, N, d)
        return self.proj(dense_attention(q, k, v).transpose(1, 2).flatten(2))
