"""The pre-norm transformer block, of the PVT family and with the additions of DAT++."""

from mmcv.cnn.bricks import DropPath
from mmcv.cnn.bricks.scale import LayerScale
from torch import Tensor, nn

from ..ops import map_to_tokens, tokens_to_map


class TransformerBlock(nn.Module):
    """``x + attn(norm(x))``, then ``x + mlp(norm(x))``, each branch dropped at random in training.

    Args:
        dim: Channels.
        attn: Module of (tokens, (height, width)).
        mlp: The same.
        drop_path: Probability of leaving a branch out for a sample (stochastic depth).
        eps: Of the norms.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, drop_path: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x), hw))
        return x + self.drop_path(self.mlp(self.norm2(x), hw))


class LocalPerceptionBlock(TransformerBlock):
    """With a depthwise convolution before the branches, and a learned scale of each channel behind each branch.

    Local perception unit: CMT, CVPR 2022, https://arxiv.org/abs/2107.06263, section 3.3. Layer scale: CaiT, ICCV 2021,
    https://arxiv.org/abs/2103.17239, section 2.1.

    Args:
        dim: Channels.
        attn: Module of (tokens, (height, width)).
        mlp: The same.
        drop_path: Probability of leaving a branch out for a sample.
        eps: Of the norms.
        lpu: Whether the convolution is there.
        layer_scale: What the scales begin with; 0: there are none.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp: nn.Module,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        lpu: bool = True,
        layer_scale: float = 0.0,
    ) -> None:
        super().__init__(dim, attn, mlp, drop_path, eps)
        self.lpu = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if lpu else None
        self.scale1 = LayerScale(dim, scale=layer_scale) if layer_scale else nn.Identity()
        self.scale2 = LayerScale(dim, scale=layer_scale) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        if self.lpu is not None:
            x = x + map_to_tokens(self.lpu(tokens_to_map(x, hw)))
        x = x + self.drop_path(self.scale1(self.attn(self.norm1(x), hw)))
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x), hw)))
