"""Constructor arguments of the backbones: signatures, initialization, and errors that name the value and the fix."""

import inspect
import math
from typing import Any

import pytest
import torch
from small_models import build_small
from torch import nn

from deformable_vit import DAT, DPT, PVT, PVTv2
from deformable_vit.backbones.dpt import DeformablePatchEmbed

SMALL_PVT = PVT.arch_zoo['test']


def test_signatures_show_every_argument() -> None:
    common = {'arch', 'in_channels', 'out_indices', 'drop_path_rate', 'with_cp', 'frozen_stages', 'init_cfg'}
    for backbone in (DAT, DPT, PVT, PVTv2):
        parameters = inspect.signature(backbone).parameters
        assert {p.kind for p in parameters.values()} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        assert all(p.default is not inspect.Parameter.empty for p in parameters.values())
        assert common | {'recompute_activation', 'output_stride'} <= set(parameters)
        documented = inspect.getdoc(PVT if backbone is DPT else backbone)
        assert all(f'    {name}: ' in documented for name in parameters)


def test_dpt_without_deformable_patches_is_pvt() -> None:
    pvt, dpt = PVT('test'), DPT(dict(like='test', points=(0, 0, 0, 0)))
    assert str(pvt) == str(dpt).replace('DPT', 'PVT')


def test_deformable_patches_start_undeformed() -> None:
    for stage in DPT().stages[1:]:
        patch_embed = stage.patch_embed
        assert isinstance(patch_embed, DeformablePatchEmbed)
        assert patch_embed.offset_predictor.weight.eq(0).all()
        torch.testing.assert_close(patch_embed.wh_bias.tanh(), torch.full((2,), 0.25))
        projection = patch_embed.output_proj
        assert projection.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert projection.bias.eq(0).all()


def test_linear_layers_start_as_in_the_official_implementation() -> None:
    for backbone in (PVT('tiny'), PVTv2('b1'), DPT('tiny')):
        for name, layer in backbone.named_modules():
            if isinstance(layer, nn.Linear) and not name.endswith('offset_predictor'):
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05), name
                assert layer.bias.eq(0).all(), name
            elif isinstance(layer, nn.Conv2d) and isinstance(backbone, PVTv2):
                fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
                assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05), name
                assert layer.bias.eq(0).all(), name


PVT_ERRORS: list[tuple[dict[str, Any], str]] = [
    (dict(arch='huge'), r"PVT has no arch 'huge'.*tiny, small, medium, large"),
    (dict(arch=dict(depths=(1, 1, 1, 1))), r"missing=\['embed_dims'"),
    (dict(arch=dict(SMALL_PVT, depths=(1, 1, 1))), r"arch\['depths'\] needs 4 values, one per stage, got \(1, 1, 1\)"),
    (dict(arch=dict(SMALL_PVT, num_heads=(1, 2, 3, 5))), '3 heads do not divide 128 channels in stage 3'),
    (dict(out_type='tokens'), "out_type must be .* got 'tokens'"),
    (dict(out_indices=(0, 4)), r'out_indices must be a non-empty subset of \(0, 1, 2, 3\), got \(0, 4\)'),
    (dict(out_indices=3), r'out_indices must be a non-empty subset of \(0, 1, 2, 3\), got 3'),
    (dict(out_indices=()), r'out_indices must be a non-empty subset of \(0, 1, 2, 3\), got \(\)'),
    (dict(out_indices=(1, 1)), r'out_indices must not repeat a stage, got \(1, 1\)'),
    (dict(frozen_stages=5), 'frozen_stages must be .* got 5'),
    (dict(drop_path_rate=1.0), r'drop_path_rate must be in \[0, 1\), got 1.0'),
    (dict(pretrain_img_size=(224, 8)), r'pretrain_img_size must be at least 32 pixels, got \(224, 8\)'),
    (dict(output_stride=8), 'output_stride must be 16 or 32, got 8'),
    (dict(output_stride=16, out_type='cls_token'), 'a class token has no stride: output_stride must be 32, got 16'),
]
DAT_ERRORS: list[tuple[dict[str, Any], str]] = [
    (dict(arch='t++'), r"DAT has no arch 't\+\+'; choose from tiny, small, base, tiny\+, tiny\+\+"),
    (dict(arch=3), 'arch must be one of tiny, .* got 3'),
    (dict(arch=dict(like='huge')), "no arch 'huge'"),
    (dict(arch=dict(like='tiny', depth=3)), r"missing=\[\], unknown=\['depth'\]"),
    (
        dict(arch=dict(like='tiny', blocks=('LS', 'LS', 'LDLD', 'LD'))),
        "stage 3: the pattern 'LDLD' of 4 blocks does not divide the depth 6",
    ),
    (dict(arch=dict(like='tiny', groups=8)), r"arch\['groups'\] needs 4 values, .* got 8; .* has \(1, 2, 3, 6\)"),
    (dict(arch=dict(like='tiny', groups=(1, 2, '3', 6))), r"arch\['groups'\] needs an integer, .* got '3'"),
    (dict(arch=dict(like='tiny', depths=(2, 2, 6.0, 2))), r"arch\['depths'\] needs an integer, .* got 6.0"),
    (dict(arch=dict(like='tiny', blocks=(1, 'LS', 'LD', 'LD'))), r"arch\['blocks'\] needs a string, .* got 1"),
    (dict(arch=dict(like='tiny', lpu=1)), r"arch\['lpu'\] needs True or False, .* got 1"),
    (dict(arch=dict(like='tiny', layer_scale=None)), r"arch\['layer_scale'\] needs a number, .* got None"),
    (dict(arch=dict(like='tiny', blocks=('LS', 'LX', 'LD', 'LD'))), "stage 2: .* L, S, D and N, got 'LX'"),
    (dict(arch=dict(like='tiny', groups=(1, 2, 5, 6))), 'stage 3: 5 groups do not divide 12 heads'),
    (dict(arch=dict(like='tiny', strides=(1, 1, 0, 1))), 'stage 3: .* got stride 0 and kernel 5'),
    (dict(arch=dict(like='tiny', offset_kernels=(1, 1, 4, 1))), 'stage 3: .* got stride 1 and kernel 4'),
    (dict(arch=dict(like='tiny', offset_ranges=(2, 2, -2, 2))), 'stage 3: offset_ranges must .* got -2'),
    (dict(arch=dict(like='tiny', convention='middle')), "convention must be .* got 'middle'"),
    (dict(arch=dict(like='tiny', num_heads=(0, 6, 12, 24))), '0 heads do not divide 96 channels'),
    (dict(pretrain_img_size=0), 'pretrain_img_size must be at least 32 pixels, got 0'),
    (dict(arch='tiny++', kernel_size=6), 'kernel size of neighborhood attention must be odd, got 6'),
    (dict(window_size=1), 'window_size must be at least 2, got 1'),
]
DPT_ERRORS: list[tuple[dict[str, Any], str]] = [
    (dict(arch='large'), "DPT has no arch 'large'; choose from tiny, small, medium"),
    (dict(arch=dict(like='tiny', points=(0, 3, -1, 3))), r'points must be 0 .* got \(0, 3, -1, 3\)'),
]


def test_wrong_arguments_are_errors_that_name_them() -> None:
    for backbone, errors in ((PVT, PVT_ERRORS), (DAT, DAT_ERRORS), (DPT, DPT_ERRORS)):
        for kwargs, words in errors:
            with pytest.raises(ValueError, match=words):
                backbone(**kwargs)


def test_wrong_images_are_errors() -> None:
    backbone = build_small('PVT')
    with pytest.raises(ValueError, match='at least 32 x 32 pixels, got height x width 64 x 31'):
        backbone(torch.randn(1, 3, 64, 31))
    with pytest.raises(ValueError, match=r'PVT needs images of shape \(B, C, H, W\), got \(3, 64, 64\)'):
        backbone(torch.randn(3, 64, 64))
