"""One stage of a pyramid: a patch embedding and transformer blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import tokens_to_map


class TransformerStage(nn.Module):
    """Patch embedding, blocks and, where a subclass or an argument adds them, position embedding and norm.

    Args:
        patch_embed: (B, C, H, W) -> tokens and their (height, width).
        blocks: Modules of (tokens, (height, width)).
        norm: Applied to the tokens at the end.
        with_cp: Recompute each block in backward instead of keeping its activations.
    """

    def __init__(
        self, patch_embed: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module | None = None, with_cp: bool = False
    ) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.Identity() if norm is None else norm
        self.with_cp = with_cp

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.patch_embed(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H', W')."""
        x, hw = self.embed(x)
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, hw, use_reentrant=False)
            else:
                x = block(x, hw)
        return self.read_out(self.norm(x), hw)

    def read_out(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        # Contiguous, because mmcv 2.1's CPU RoIAlign reads a channels-last map as if it were not, and says nothing.
        return tokens_to_map(x, hw).contiguous()
