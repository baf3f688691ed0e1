"""The pre-norm transformer block, and what its branches pass through."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth (ECCV 2016, https://arxiv.org/abs/1603.09382): drop a branch of whole samples in training.

    Args:
        drop_prob: Probability that a sample's branch is dropped, in [0, 1). The others are divided by the rest.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, ...) to the same shape."""
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        kept = keep + torch.rand(x.shape[0], *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device)
        return x / keep * kept.floor()


class LayerScale(nn.Module):
    """Scale each channel of a branch (CaiT, ICCV 2021, https://arxiv.org/abs/2103.17239, section 2.1).

    Args:
        dim: Number of channels.
        scale: Initial scale.
    """

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to the same shape."""
        return x * self.weight


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
