"""The MLP of a transformer block, plain and with a depthwise convolution (PVT v2, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from ..ops import map_to_tokens, tokens_to_map


class MLP(nn.Module):
    """Linear, GELU, linear.

    Args:
        dim: Number of input and output channels.
        hidden_dim: Number of hidden channels.
        recompute_activation: Keep the hidden tokens before the activation only, and recompute the activation in
            backward. It saves an eighth of the memory of a DAT-T training iteration.
    """

    def __init__(self, dim: int, hidden_dim: int, recompute_activation: bool = True) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.recompute_activation = recompute_activation

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        x = self.mix(self.fc1(x), hw)
        if self.recompute_activation and torch.is_grad_enabled():
            # Of the module, not of its weight: fc2 may have been replaced, for example by LoRA with dropout.
            return recompute_in_backward(self._project, x, use_reentrant=False)
        return self._project(x)

    def _project(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(x))

    def mix(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Transform the hidden tokens (B, N, hidden_dim) before the activation; the identity here."""
        return x


class ConvMLP(MLP):
    """MLP with a 3 x 3 depthwise convolution of the hidden tokens, whose zero padding encodes positions."""

    def __init__(self, dim: int, hidden_dim: int, recompute_activation: bool = True) -> None:
        super().__init__(dim, hidden_dim, recompute_activation)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)

    def mix(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return map_to_tokens(self.dwconv(tokens_to_map(x, hw)))
