"""One stage of a pyramid: a patch embedding and transformer blocks."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops import current_path, tokens_to_map, use_path


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
                # Compiled, both are in one graph, for which the path was chosen when it was traced.
                context = {} if torch.compiler.is_compiling() else dict(context_fn=_same_path)
                x = checkpoint(block, x, hw, use_reentrant=False, **context)
            else:
                x = block(x, hw)
        return self.read_out(self.norm(x), hw)

    def read_out(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        # Contiguous, because mmcv 2.1's CPU RoIAlign reads a channels-last map as if it were not, and says nothing.
        return tokens_to_map(x, hw).contiguous()


def _same_path() -> tuple[AbstractContextManager, AbstractContextManager]:
    """For forward and for its repetition in backward, which must go the operators' same way."""
    return nullcontext(), use_path(current_path())
