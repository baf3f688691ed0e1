"""Attention within windows and within neighborhoods, with a learned relative position bias."""

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from ...ops import neighborhood_attention, surplus_pairs, unflatten, window_attention


class LocalAttention(nn.Module):
    """The projections before and after an attention of each pixel to pixels nearby.

    Args:
        dim: Number of channels.
        num_heads: Number of heads; must divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def project_in(self, x: Tensor, hw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, heads, H, W, d) of tokens (B, H * W, C)."""
        # Chunks instead of an axis of three: backward then concatenates the gradients once.
        q, k, v = (unflatten(unflatten(t, 1, hw), -1, (self.num_heads, -1)) for t in self.qkv(x).chunk(3, dim=-1))
        return q.permute(0, 3, 1, 2, 4), k.permute(0, 3, 1, 2, 4), v.permute(0, 3, 1, 2, 4)

    def project_out(self, x: Tensor) -> Tensor:
        """Map (B, heads, H, W, d) to tokens (B, H * W, C)."""
        return self.proj(x.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2))


class WindowAttention(LocalAttention):
    """Attention within (shifted) windows (Swin Transformer, ICCV 2021, https://arxiv.org/abs/2103.14030, section 3.2).

    Args:
        dim: Number of channels.
        num_heads: Number of heads; must divide ``dim``.
        window_size: Window size in pixels.
        shift: Rows and columns that the windows are shifted by.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int = 7, shift: int = 0) -> None:
        super().__init__(dim, num_heads)
        self.shift = shift
        self.table_size = 2 * window_size - 1
        # As in official checkpoints: row-major by (query - key), heads last.
        self.relative_position_bias_table = nn.Parameter(torch.zeros(self.table_size**2, num_heads))
        trunc_normal_(self.relative_position_bias_table, std=0.01)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Map (B, H * W, C) to (B, H * W, C)."""
        table = self.relative_position_bias_table.T.unflatten(1, (self.table_size, self.table_size)).flip(1, 2)
        return self.project_out(window_attention(*self.project_in(x, hw), table, self.shift))


class NeighborhoodAttention(LocalAttention):
    """Attention to the K x K pixels around each pixel (NAT, CVPR 2023, https://arxiv.org/abs/2204.07143, section 3.1).

    Args:
        dim: Number of channels.
        num_heads: Number of heads; must divide ``dim``.
        kernel_size: K, odd.

    Raises:
        ValueError: ``kernel_size`` is not odd and positive.
    """

    def __init__(self, dim: int, num_heads: int, kernel_size: int = 7) -> None:
        super().__init__(dim, num_heads)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'the kernel size of neighborhood attention must be odd, got {kernel_size}')
        self.kernel_size = kernel_size
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        trunc_normal_(self.rpb, std=0.02)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Map (B, H * W, C) to (B, H * W, C)."""
        return self.project_out(neighborhood_attention(*self.project_in(x, hw), self.rpb))

    def extra_flops(self, args: tuple[Tensor, tuple[int, int]], out: Tensor) -> int:
        """Subtract the masked products of tiles, which belong to no neighborhood."""
        return -2 * out.shape[0] * out.shape[-1] * surplus_pairs(args[1], self.kernel_size)
