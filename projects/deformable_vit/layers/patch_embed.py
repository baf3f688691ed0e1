"""Patch embeddings: from a map to the tokens of a coarser one."""

from torch import Tensor, nn

from ..ops import map_to_tokens, pad_to_multiple


class PatchEmbed(nn.Module):
    """Non-overlapping patches, each projected to one token and normalised (PVT, section 3.1).

    A map that the stride does not divide is padded with zeros at the bottom and on the right, so that no pixel is lost
    (the authors' code drops the rest; sizes that are multiples of 32 are not affected).

    Args:
        in_channels: Channels of the map.
        dim: Channels of the tokens.
        stride: Edge of a patch in pixels.
    """

    def __init__(self, in_channels: int, dim: int, stride: int) -> None:
        super().__init__()
        self.proj = self._build_projection(in_channels, dim, stride)
        self.norm = nn.LayerNorm(dim)

    @staticmethod
    def _build_projection(in_channels: int, dim: int, stride: int) -> nn.Conv2d:
        return nn.Conv2d(in_channels, dim, stride, stride=stride)

    def project(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, dim, ceil(H / stride), ceil(W / stride))."""
        return self.proj(pad_to_multiple(x, self.proj.stride[0]))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, in_channels, H, W) -> tokens (B, H' * W', dim) and (H', W'), with H' = ceil(H / stride)."""
        x = self.project(x)
        return self.norm(map_to_tokens(x)), (x.shape[-2], x.shape[-1])


class OverlapPatchEmbed(PatchEmbed):
    """Patches that overlap by half: a convolution of kernel 2 * stride - 1 (PVT v2, section 3.1)."""

    @staticmethod
    def _build_projection(in_channels: int, dim: int, stride: int) -> nn.Conv2d:
        return nn.Conv2d(in_channels, dim, 2 * stride - 1, stride=stride, padding=stride - 1)

    def project(self, x: Tensor) -> Tensor:
        return self.proj(x)
