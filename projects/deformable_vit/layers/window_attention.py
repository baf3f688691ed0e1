"""Attention within windows and within neighbourhoods, with a learned relative position bias."""

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from ..ops import neighborhood_attention, window_attention


class MapAttention(nn.Module):
    """Projections around an attention of a pixel to pixels nearby; a subclass says which, and holds their bias.

    Args:
        dim: Channels.
        num_heads: Heads; must divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, heads, H, W, d) -> (B, heads, H, W, d)."""
        raise NotImplementedError

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, H * W, C) -> (B, H * W, C)."""
        # In chunks, not by an axis of three: their gradients are then put side by side in one go.
        qkv = (t.unflatten(1, hw).unflatten(-1, (self.num_heads, -1)) for t in self.qkv(x).chunk(3, dim=-1))
        out = self.attend(*(t.permute(0, 3, 1, 2, 4) for t in qkv))  # (B, heads, H, W, d)
        return self.proj(out.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2))


class WindowAttention(MapAttention):
    """Within windows (Swin Transformer, ICCV 2021, https://arxiv.org/abs/2103.14030, section 3.2).

    Args:
        dim: Channels.
        num_heads: Heads; must divide ``dim``.
        window_size: Edge of a window in pixels.
        shift: Rows and columns that the windows are shifted by.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int = 7, shift: int = 0) -> None:
        super().__init__(dim, num_heads)
        self.shift = shift
        # As in the authors' files: row-major by (query - key), heads last.
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        trunc_normal_(self.relative_position_bias_table, std=0.01)
        self._edge = 2 * window_size - 1

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        table = self.relative_position_bias_table.T.unflatten(1, (self._edge, self._edge))
        return window_attention(q, k, v, table.flip(1, 2), self.shift)


class NeighborhoodAttention(MapAttention):
    """To the square of pixels around each (NAT, CVPR 2023, https://arxiv.org/abs/2204.07143, section 3.1).

    Args:
        dim: Channels.
        num_heads: Heads; must divide ``dim``.
        kernel_size: Edge of the square in pixels, odd.
    """

    def __init__(self, dim: int, num_heads: int, kernel_size: int = 7) -> None:
        super().__init__(dim, num_heads)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'the kernel of neighbourhood attention must be odd, got {kernel_size}')
        self.kernel_size = kernel_size
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        trunc_normal_(self.rpb, std=0.02)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return neighborhood_attention(q, k, v, self.rpb)
