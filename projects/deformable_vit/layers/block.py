"""The pre-norm transformer block."""

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn


class TransformerBlock(nn.Module):
    """``x + attn(norm(x))``, then ``x + mlp(norm(x))``, with stochastic depth on both branches.

    Args:
        dim: Number of channels.
        attn: Attention, called with tokens and (height, width).
        mlp: MLP, called with tokens and (height, width).
        drop_path: Stochastic depth rate, in [0, 1).
        eps: Epsilon of the norms.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, drop_path: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x), hw))
        return x + self.drop_path(self.mlp(self.norm2(x), hw))
