"""output_stride=16, DC5 in DETR: the last stage at twice the resolution, with the same weights."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from small_models import SMALL_DIMS, build_small
from torch import Tensor, nn

from deformable_vit.backbones import PyramidBackbone
from deformable_vit.backbones.base import TransformerStage
from deformable_vit.layers import OverlapPatchEmbed
from deformable_vit.ops import map_to_tokens, tokens_to_map

Build = Callable[..., PyramidBackbone]


def test_every_other_pixel_is_that_of_stride_32(small_backbone: Build) -> None:
    """The pixels in between are computed like the others: those of the input that begins a pixel later."""
    plain, dense = small_backbone().eval(), small_backbone(output_stride=16).eval()
    dense.load_state_dict(plain.state_dict())
    for size in ((32, 32), (64, 96), (97, 33)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            *expected, coarse = plain(x)
            *outs, fine = dense(x)
        assert fine.shape == (2, SMALL_DIMS[-1], *(math.ceil(n / 16) for n in size))
        assert fine.is_contiguous()
        torch.testing.assert_close(fine[..., ::2, ::2], coarse)
        assert all(torch.equal(out, same) for out, same in zip(outs, expected, strict=True))
    assert dense.out_strides == (4, 8, 16, 16)
    with torch.no_grad():
        x = torch.randn(1, 128, 6, 6)
        below = dense.without_stride(x[..., 1:, :])
        torch.testing.assert_close(dense.without_stride(x)[..., 1::2, ::2], below[..., ::2, ::2])


class Convolution(nn.Module):
    """A block that is one depthwise convolution of tokens."""

    def __init__(self, dim: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=dilation, dilation=dilation, groups=dim)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return map_to_tokens(self.conv(tokens_to_map(x, hw)))


def test_convolutions_are_dilated() -> None:
    backbone = build_small('PVTv2', output_stride=16)
    stage = backbone.stages[3] = TransformerStage(OverlapPatchEmbed(3, 4, stride=2), [Convolution(4)])
    x = torch.randn(1, 3, 13, 16)
    projected = F.conv2d(x, stage.patch_embed.proj.weight, stage.patch_embed.proj.bias, stride=1, padding=1)
    dilated = Convolution(4, dilation=2)
    dilated.load_state_dict(stage.blocks[0].state_dict())
    expected = tokens_to_map(dilated(stage.patch_embed.norm(map_to_tokens(projected)), (13, 16)), (13, 16))
    # At the top and on the left, the shifted grids begin with the zero padding of the patch embedding.
    torch.testing.assert_close(backbone.without_stride(x)[..., 4:, 4:], expected[..., 4:, 4:])
