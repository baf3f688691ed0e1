"""output_stride=16, DC5 in DETR: the last stage at twice the resolution, with the same weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import SMALL_BACKBONES, SMALL_DIMS, build_small
from torch import Tensor, nn

from deformable_vit.backbones.base import TransformerStage
from deformable_vit.layers import OverlapPatchEmbed
from deformable_vit.ops import map_to_tokens, tokens_to_map


@pytest.mark.parametrize('size', [(32, 32), (64, 96), (97, 33)])
@pytest.mark.parametrize('name', SMALL_BACKBONES)
def test_every_other_pixel_is_that_of_stride_32(name: str, size: tuple[int, int]) -> None:
    plain = build_small(name).eval()
    dense = build_small(name, output_stride=16).eval()
    dense.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        *expected, coarse = plain(x)
        *outs, fine = dense(x)
    assert fine.shape == (2, SMALL_DIMS[-1], *(math.ceil(n / 16) for n in size))
    assert fine.is_contiguous()
    torch.testing.assert_close(fine[..., ::2, ::2], coarse)
    for out, same in zip(outs, expected, strict=True):
        assert torch.equal(out, same)


@pytest.mark.parametrize('name', SMALL_BACKBONES)
def test_shifted_images_have_shifted_feature_maps(name: str) -> None:
    """The pixels in between are computed like the others: those of the image that begins 16 pixels later."""
    dense, plain = build_small(name, output_stride=16).eval(), build_small(name).eval()
    plain.load_state_dict(dense.state_dict())
    with torch.no_grad():
        x = dense.stages[2](dense.stages[1](dense.stages[0](torch.randn(1, 3, 96, 96))))
        fine = dense.stages[3].without_stride(x)
        torch.testing.assert_close(fine[..., 1::2, ::2], plain.stages[3](x[..., 1:, :])[..., :3, :])


def test_every_parameter_has_a_gradient(small_backbone) -> None:
    backbone = small_backbone(output_stride=16, out_indices=(3,))
    for module in backbone.modules():
        if hasattr(module, 'offset_predictor'):  # initialized with zeros, which block the gradient
            nn.init.normal_(module.offset_predictor.weight, std=0.02)
    (out,) = backbone(torch.randn(1, 3, 64, 64))
    (out * torch.randn_like(out)).sum().backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


class Convolution(nn.Module):
    """A block that is one depthwise convolution of tokens."""

    def __init__(self, dim: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=dilation, dilation=dilation, groups=dim)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return map_to_tokens(self.conv(tokens_to_map(x, hw)))


def test_convolutions_are_dilated() -> None:
    stage = TransformerStage(OverlapPatchEmbed(3, 4, stride=2), [Convolution(4)])
    x = torch.randn(1, 3, 13, 16)
    projected = F.conv2d(x, stage.patch_embed.proj.weight, stage.patch_embed.proj.bias, stride=1, padding=1)
    dilated = Convolution(4, dilation=2)
    dilated.load_state_dict(stage.blocks[0].state_dict())
    expected = tokens_to_map(dilated(stage.patch_embed.norm(map_to_tokens(projected)), (13, 16)), (13, 16))
    # At the top and on the left, the shifted grids begin with the zero padding of the patch embedding.
    torch.testing.assert_close(stage.without_stride(x)[..., 4:, 4:], expected[..., 4:, 4:])


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(output_stride=8), 'output_stride must be 16 or 32, got 8'),
        (dict(output_stride=16, out_type='cls_token'), 'a class token has no stride: output_stride must be 32, got 16'),
    ],
)
def test_other_strides_are_errors(kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_small('PVT', **kwargs)
