"""The two-layer perceptron of a transformer block, plain and with a depthwise convolution (PVT v2, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import current_path, map_to_tokens, tokens_to_map


class MLP(nn.Module):
    """Linear, GELU, linear.

    Args:
        dim: Channels in and out.
        hidden_dim: Channels between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = self.mix(self.fc1(x), hw)
        if torch.is_grad_enabled() and current_path() != 'reference':
            # Backward needs the hidden tokens before and after the activation. Keeping those before alone saves an
            # eighth of DAT-T's memory, for an activation more. By module, not by weight: `fc2` may have been replaced,
            # such as by LoRA with dropout.
            return checkpoint(self.activate, x, use_reentrant=False)
        return self.activate(x)

    def activate(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(x))

    def mix(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """What happens to the hidden tokens (B, N, hidden) before the activation: nothing here."""
        return x


class ConvMLP(MLP):
    """With a 3 x 3 depthwise convolution of the hidden map, whose zero padding tells positions apart."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__(dim, hidden_dim)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)

    def mix(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return map_to_tokens(self.dwconv(tokens_to_map(x, hw)))


class LinearConvMLP(ConvMLP):
    """The form that goes with linear spatial-reduction attention: ReLU before the convolution."""

    def mix(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return super().mix(F.relu(x), hw)


class ResidualConvMLP(ConvMLP):
    """The form of DAT++: the convolution is added to what it sees."""

    def mix(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return x + super().mix(x, hw)
