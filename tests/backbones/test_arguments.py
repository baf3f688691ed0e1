"""Constructor arguments of the backbones: signatures, initialization, and errors that name the value and the fix."""

import inspect
import math
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from small_models import SMALL_BACKBONES, build_small
from torch import nn

from deformable_vit import DAT, DPT, PVT, PVTv2
from deformable_vit.backbones import PyramidBackbone
from deformable_vit.backbones.dpt import DeformablePatchEmbed

SMALL_PVT = PVT.arch_zoo['test']


def signature(backbone: type[PyramidBackbone]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(backbone).parameters)


@pytest.mark.parametrize('backbone', [DAT, DPT, PVT, PVTv2])
def test_signatures_show_every_argument(backbone: type[PyramidBackbone]) -> None:
    parameters = signature(backbone)
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert all(p.default is not inspect.Parameter.empty for p in parameters.values())
    common = {'arch', 'in_channels', 'out_indices', 'drop_path_rate', 'with_cp', 'frozen_stages', 'init_cfg'}
    assert common | {'recompute_activation'} <= set(parameters)
    for name in parameters:
        assert f'    {name}: ' in inspect.getdoc(backbone)


def test_signatures_of_pvt_and_dpt_are_equal() -> None:
    assert signature(DPT) == signature(PVT)


def test_dpt_passes_every_argument_on() -> None:
    """Each argument gets a value that is not its default, and PVT and DPT without deformable patches are equal."""
    arch = dict(SMALL_PVT, depths=(1, 1, 1, 1))
    kwargs = dict(
        in_channels=2, pretrain_img_size=(64, 96), out_type='cls_token', out_indices=(1, 3), drop_path_rate=0.3,
        with_cp=True, frozen_stages=1, recompute_activation=False, init_cfg=dict(type='Pretrained', checkpoint='x.pth'),
    )  # fmt: skip
    assert {'arch', 'output_stride', *kwargs} == set(signature(DPT))
    pvt, dpt = PVT(arch, **kwargs), DPT(dict(arch, points=(0, 0, 0, 0)), **kwargs)
    assert str(pvt) == str(dpt).replace('DPT', 'PVT')
    assert {k: v.shape for k, v in pvt.state_dict().items()} == {k: v.shape for k, v in dpt.state_dict().items()}
    assert [p.requires_grad for p in pvt.parameters()] == [p.requires_grad for p in dpt.parameters()]
    for name in ('out_indices', 'frozen_stages', 'init_cfg', 'out_channels'):
        assert getattr(pvt, name) == getattr(dpt, name)
    for stage in (*pvt.stages, *dpt.stages):
        assert stage.with_cp
        assert not any(block.mlp.recompute_activation for block in stage.blocks)
    assert DPT(dict(SMALL_PVT, points=(0, 0, 0, 0)), output_stride=16).output_stride == 16


@pytest.mark.parametrize(
    ('backbone', 'argument'),
    [*((backbone, 'norm_eval') for backbone in (DAT, DPT, PVT, PVTv2)), (PVTv2, 'pretrain_img_size')],
)
def test_arguments_without_effect_do_not_exist(backbone: type[PyramidBackbone], argument: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{argument}'"):
        backbone(**{argument: 224})


def test_deformable_patches_start_undeformed() -> None:
    for stage in DPT().stages[1:]:
        patch_embed = stage.patch_embed
        assert isinstance(patch_embed, DeformablePatchEmbed)
        assert patch_embed.offset_predictor.weight.eq(0).all()
        torch.testing.assert_close(patch_embed.wh_bias.tanh(), torch.full((2,), 0.25))
        projection = patch_embed.output_proj
        assert projection.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert projection.weight.abs().max() > 3 * 0.02  # normal; torch's default is uniform
        assert projection.bias.eq(0).all()
        # Boxes of half the size of the patches, with the same centers.
        boxes = patch_embed.boxes(torch.randn(2, patch_embed.patch_embed.proj.in_channels, 4, 6))
        center = (torch.arange(3) + 0.5) / 3
        torch.testing.assert_close(boxes[:, 0], (center - 1 / 12).expand(2, 2, 3))
        torch.testing.assert_close(boxes[:, 2], (center + 1 / 12).expand(2, 2, 3))
        torch.testing.assert_close(boxes[:, 1, :, 0], torch.tensor([0.125, 0.625]).expand(2, 2))
        torch.testing.assert_close(boxes[:, 3, :, 0], torch.tensor([0.375, 0.875]).expand(2, 2))


@pytest.mark.parametrize('backbone', [PVT('tiny'), PVTv2('b1'), DPT('tiny')], ids=lambda b: type(b).__name__)
def test_linear_layers_start_as_in_the_official_implementation(backbone: PyramidBackbone) -> None:
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Linear) and not name.endswith('offset_predictor'):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05), name
            assert layer.bias.eq(0).all(), name
        elif isinstance(layer, nn.Conv2d) and isinstance(backbone, PVTv2):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05), name
            assert layer.bias.eq(0).all(), name


def test_class_token_is_the_normalized_output_of_the_last_stage() -> None:
    backbone = build_small('PVT', out_type='cls_token', out_indices=(2, 3)).eval()
    third, token = backbone(torch.randn(2, 3, 64, 64))
    assert third.shape == (2, 128, 4, 4)
    assert token.shape == (2, 160)
    # Normalized: with unit weight and no bias its channels have mean 0 and variance 1.
    torch.testing.assert_close(token.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(token.var(1, correction=0), torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(type='PVT', arch='huge'), r"no arch 'huge'.*tiny, small, medium, large"),
        (dict(type='PVTv2', arch='b9'), r"no arch 'b9'.*b2-li"),
        (dict(type='PVT', arch=dict(depths=(1, 1, 1, 1))), r"missing=\['embed_dims'"),
        (dict(SMALL_BACKBONES['PVT'], arch=dict(SMALL_PVT, depths=(1, 1, 1))), r"arch\['depths'\] needs 4 values"),
        (
            dict(SMALL_BACKBONES['PVT'], arch=dict(SMALL_PVT, num_heads=(1, 2, 3, 5))),
            '3 heads do not divide 128 channels',
        ),
        (dict(type='PVT', out_type='tokens'), "out_type must be .* got 'tokens'"),
        (dict(type='PVT', out_indices=(0, 4)), r'out_indices must be some of 0, 1, 2, 3, got \(0, 4\)'),
        (dict(type='PVTv2', frozen_stages=5), 'frozen_stages must be .* got 5'),
        (dict(type='PVTv2', drop_path_rate=1.0), r'drop_path_rate must be in \[0, 1\), got 1.0'),
        (dict(type='DAT', arch='t++'), r"DAT has no arch 't\+\+'; choose from tiny, small, base, tiny\+, tiny\+\+"),
        (dict(type='DAT', arch=dict(like='huge')), "no arch 'huge'"),
        (dict(type='DAT', arch=dict(like='tiny', depth=3)), r"missing=\[\], unknown=\['depth'\]"),
        (
            dict(type='DAT', arch=dict(like='tiny', blocks=('LS', 'LS', 'LDLD', 'LD'))),
            "stage 3: the pattern 'LDLD' of 4 blocks does not divide the depth 6",
        ),
        (
            dict(type='DAT', arch=dict(like='tiny', blocks=('LS', 'LX', 'LD', 'LD'))),
            "stage 2: .* L, S, D and N, got 'LX'",
        ),
        (dict(type='DAT', arch=dict(like='tiny', groups=(1, 2, 5, 6))), 'stage 3: 5 groups do not divide 12 heads'),
        (dict(type='DAT', arch=dict(like='tiny', strides=(1, 1, 0, 1))), 'stage 3: .* got stride 0 and kernel 5'),
        (
            dict(type='DAT', arch=dict(like='tiny', offset_kernels=(1, 1, 4, 1))),
            'stage 3: .* got stride 1 and kernel 4',
        ),
        (dict(type='DAT', arch=dict(like='tiny', coordinates='middle')), "coordinates must be .* got 'middle'"),
        (dict(type='DAT', arch=3), 'arch must be one of tiny, .* got 3'),
        (dict(type='DAT', arch=dict(like='tiny', num_heads=(0, 6, 12, 24))), '0 heads do not divide 96 channels'),
        (
            dict(type='DAT', arch=dict(like='tiny', offset_ranges=(2, 2, -2, 2))),
            'stage 3: offset_ranges must .* got -2',
        ),
        (dict(type='DAT', pretrain_img_size=0), 'pretrain_img_size must be at least 32 pixels, got 0'),
        (dict(type='PVT', pretrain_img_size=(224, 8)), r'pretrain_img_size must be at least 32 pixels, got \(224, 8\)'),
        (dict(type='DAT', arch='tiny++', kernel_size=-1), 'kernel size of neighborhood attention must be odd, got -1'),
        (dict(type='DAT', window_size=1), 'window_size must be at least 2, got 1'),
        (dict(type='DAT', arch='tiny++', kernel_size=6), 'kernel size of neighborhood attention must be odd, got 6'),
        (dict(type='DPT', arch='large'), "DPT has no arch 'large'; choose from tiny, small, medium"),
        (dict(type='DPT', arch=dict(like='tiny', points=(0, 3, -1, 3))), r'points must be 0 .* got \(0, 3, -1, 3\)'),
    ],
)
def test_wrong_arguments_are_errors_that_name_them(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MODELS.build(kwargs)


def test_small_images_are_an_error() -> None:
    with pytest.raises(ValueError, match='at least 32 x 32 pixels, got height x width 64 x 31'):
        build_small('PVT')(torch.randn(1, 3, 64, 31))
