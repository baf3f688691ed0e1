"""Patch embeddings: from an image or feature map to the tokens of the next resolution."""

from torch import Tensor, nn

from ..ops import map_to_tokens, pad_to_multiple


class PatchEmbed(nn.Module):
    """Project non-overlapping patches and normalize the tokens (PVT, section 3.1).

    Inputs that the stride does not divide are zero-padded at the bottom and right, so that no pixel is lost. (The
    official implementation drops the remainder; multiples of 32 are not affected.)

    Args:
        in_channels: Number of input channels.
        dim: Number of channels of the tokens.
        stride: Patch size in pixels.
        bias: Whether the projection has a bias.
    """

    def __init__(self, in_channels: int, dim: int, stride: int, bias: bool = True) -> None:
        super().__init__()
        self.proj = self._build_projection(in_channels, dim, stride, bias)
        self.stride = stride
        self.norm = nn.LayerNorm(dim)

    @staticmethod
    def _build_projection(in_channels: int, dim: int, stride: int, bias: bool) -> nn.Conv2d:
        return nn.Conv2d(in_channels, dim, stride, stride=stride, bias=bias)

    def project(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, dim, ceil(H / stride), ceil(W / stride))."""
        return self.proj(pad_to_multiple(x, self.stride))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens (B, H' * W', dim) and (H', W'), with H' = ceil(H / stride), for (B, in_channels, H, W)."""
        x = self.project(x)
        return self.norm(map_to_tokens(x)), (x.shape[-2], x.shape[-1])


class OverlapPatchEmbed(PatchEmbed):
    """Project patches that overlap by half: a convolution of kernel size 2 * stride - 1 (PVT v2, section 3.1)."""

    @staticmethod
    def _build_projection(in_channels: int, dim: int, stride: int, bias: bool) -> nn.Conv2d:
        return nn.Conv2d(in_channels, dim, 2 * stride - 1, stride=stride, padding=stride - 1, bias=bias)

    def project(self, x: Tensor) -> Tensor:
        return self.proj(x)
