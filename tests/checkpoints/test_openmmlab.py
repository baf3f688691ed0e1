"""Weights of mmdet's PyramidVisionTransformer and PyramidVisionTransformerV2 load, and give the same feature maps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from deformable_vit.checkpoints import compare, convert_model, convert_state_dict, translate_names

DEPTHS, HEADS, RATIOS = (1, 2, 1, 1), (1, 2, 5, 8), (8, 8, 4, 4)
ARCH = dict(embed_dims=(16, 32, 80, 128), depths=DEPTHS, num_heads=HEADS, mlp_ratios=RATIOS, sr_ratios=(8, 4, 2, 1))
PAIRS = dict(PVT='PyramidVisionTransformer', PVTv2='PyramidVisionTransformerV2')


def backbones(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configs of a backbone of this project and of mmdet's, small and of the same size."""
    arch = ARCH if name == 'PVT' else dict(like='b0', **ARCH)
    return dict(type=name, arch=arch), dict(type=PAIRS[name], embed_dims=16, num_layers=DEPTHS, drop_path_rate=0.0)


def with_random_weights(model: nn.Module) -> nn.Module:
    """Draw all weights, norms included, from one seed."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def with_official_eps(backbone: nn.Module) -> nn.Module:
    """Set the epsilon of the norms of patch embeddings and of spatial reduction, 1e-6 in mmdet, to the official one."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.LayerNorm) and name.endswith(('.0.norm', '.attn.norm')):
            module.eps = 1e-5
    return backbone


@pytest.mark.parametrize('size', [224, 256])
@pytest.mark.parametrize('name', PAIRS)
def test_feature_maps_are_those_of_mmdet(name: str, size: int) -> None:
    init_default_scope('mmdet')
    converted, port = (MODELS.build(config) for config in backbones(name))
    with_random_weights(port)
    converted.load_state_dict(port.state_dict())  # strict: no name is missing, and none is left
    converted, port = converted.double().eval(), port.double().eval()
    image = torch.randn(1, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for found, expected in zip(converted(image), port(image), strict=True):
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
        for found, expected in zip(converted(image), with_official_eps(port)(image), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('name', PAIRS)
def test_whole_detectors_of_the_model_zoo_load_strictly(tmp_path: Path, name: str) -> None:
    init_default_scope('mmdet')
    channels = list(ARCH['embed_dims'])
    converted, port = (
        MODELS.build(
            dict(
                type='RetinaNet',
                backbone=backbone,
                neck=dict(type='FPN', in_channels=channels, out_channels=16, num_outs=5),
                bbox_head=dict(
                    type='RetinaHead',
                    num_classes=3,
                    in_channels=16,
                    feat_channels=16,
                    anchor_generator=dict(type='AnchorGenerator', strides=[4, 8, 16, 32, 64], ratios=[1.0], scales=[4]),
                ),
            )
        )
        for backbone in backbones(name)
    )
    with_random_weights(port)
    saved = port.state_dict()
    assert not compare(convert_state_dict(converted, saved), converted.state_dict())
    torch.save(dict(meta={}, state_dict=saved), tmp_path / 'retinanet.pth')
    load_checkpoint(converted, str(tmp_path / 'retinanet.pth'), strict=True)
    own = converted.state_dict()
    written = convert_model(saved)
    assert written.keys() == own.keys()
    assert all(torch.equal(written[key], value) for key, value in own.items())
    assert torch.equal(own['bbox_head.retina_cls.bias'], saved['bbox_head.retina_cls.bias'])
    block = f'layers.1.1.{1 + (name == "PVT")}'  # PVT has its position embedding before the blocks
    q, kv = own['backbone.stages.1.blocks.1.attn.q.weight'], own['backbone.stages.1.blocks.1.attn.kv.weight']
    assert torch.equal(torch.cat([q, kv]), saved[f'backbone.{block}.attn.attn.in_proj_weight'])


def test_other_names_stay() -> None:
    state_dict = {'layers.0.blocks.0.weight': torch.zeros(1), 'norm.bias': torch.zeros(2)}
    assert translate_names(state_dict) == state_dict
