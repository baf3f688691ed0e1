"""Patch embeddings: from a map to the tokens of a coarser one."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import (
    coordinate_dtype,
    decode_boxes,
    deformable_patch_projection,
    map_to_tokens,
    pad_to_multiple,
    tokens_to_map,
)


class PatchEmbed(nn.Module):
    """Non-overlapping patches, each projected to one token and normalised (PVT, section 3.1).

    A map that the stride does not divide is padded with zeros at the bottom and on the right, so that no pixel is lost
    (the authors' code drops the rest; sizes that are multiples of 32 are not affected).

    Args:
        in_channels: Channels of the map.
        dim: Channels of the tokens.
        stride: Edge of a patch in pixels.
        bias: Whether the projection has a bias of its own.
    """

    def __init__(self, in_channels: int, dim: int, stride: int, bias: bool = True) -> None:
        super().__init__()
        self.proj = self._build_projection(in_channels, dim, stride, bias)
        self.norm = nn.LayerNorm(dim)

    @staticmethod
    def _build_projection(in_channels: int, dim: int, stride: int, bias: bool) -> nn.Conv2d:
        return nn.Conv2d(in_channels, dim, stride, stride=stride, bias=bias)

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
    def _build_projection(in_channels: int, dim: int, stride: int, bias: bool) -> nn.Conv2d:
        return nn.Conv2d(in_channels, dim, 2 * stride - 1, stride=stride, padding=stride - 1, bias=bias)

    def project(self, x: Tensor) -> Tensor:
        return self.proj(x)


class ConvStem(nn.Module):
    """Two overlapping convolutions of stride 2 in place of one patch embedding of stride 4 (DAT++, section 4.2).

    Args:
        in_channels: Channels of the pictures.
        dim: Channels of the tokens; half as many between the two.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.first = OverlapPatchEmbed(in_channels, dim // 2, stride=2)
        self.second = OverlapPatchEmbed(dim // 2, dim, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, in_channels, H, W) -> tokens (B, H' * W', dim) and (H', W'), with H' = ceil(H / 4)."""
        x, hw = self.first(x)
        return self.second(tokens_to_map(F.gelu(x), hw))


class DeformablePatchEmbed(nn.Module):
    """Patches that the picture moves and scales (DPT, ACM MM 2021, https://arxiv.org/abs/2107.14467, section 3.3).

    A plain patch embedding predicts a box per patch; the tokens are projected from k x k points of that box.

    Args:
        in_channels: Channels of the map.
        dim: Channels of the tokens.
        stride: Edge of a plain patch in pixels.
        points: k, points of a box along each axis.
    """

    def __init__(self, in_channels: int, dim: int, stride: int, points: int = 3) -> None:
        super().__init__()
        self.points = points
        self.patch_embed = PatchEmbed(in_channels, dim, stride)
        self.offset_predictor = nn.Linear(dim, 4, bias=False)
        self.reset_offsets()
        # Boxes begin with points half a pixel to each side of the centre of a patch of two pixels, as the authors' do.
        self.wh_bias = nn.Parameter(torch.full((2,), math.log(math.sqrt(5 / 3))))
        self.output_proj = nn.Linear(in_channels * points**2, dim)
        self.norm = nn.LayerNorm(dim)

    def reset_offsets(self) -> None:
        """Begin with plain patches: every box in its place, of one size."""
        nn.init.zeros_(self.offset_predictor.weight)

    def boxes(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 4, H', W') corners x0, y0, x1, y1, in [0, 1] from edge to edge of the map."""
        x, hw = self.patch_embed(x)
        dtype = coordinate_dtype(x)
        with torch.autocast(x.device.type, enabled=False):  # half-precision offsets lose pixels
            offsets = F.linear(F.gelu(x.to(dtype)), self.offset_predictor.weight.to(dtype))
            return decode_boxes(tokens_to_map(offsets, hw), self.wh_bias)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, in_channels, H, W) -> tokens (B, H' * W', dim) and (H', W'), with H' = ceil(H / stride)."""
        x = pad_to_multiple(x, self.patch_embed.proj.stride[0])
        boxes = self.boxes(x)
        # The authors keep a point's channels together, points x-major; here (dim, channel, y, x).
        weight = self.output_proj.weight.unflatten(1, (self.points, self.points, -1)).permute(0, 3, 2, 1)
        x = deformable_patch_projection(x, boxes, weight, self.output_proj.bias)
        return self.norm(map_to_tokens(x)), tuple(x.shape[-2:])
