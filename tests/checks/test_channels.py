"""Data preprocessors that cannot give the backbone its channels are errors, those that can are none."""

from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from deformable_vit.checks.channels import check_channels

PREPROCESSORS = dict(mmdet='DetDataPreprocessor', mmseg='SegDataPreProcessor', mmpretrain='ClsDataPreprocessor')


def normalize(scope: str, preprocessor: dict[str, Any], image: Tensor) -> Tensor:
    """Return what the data preprocessor makes of an image, (1, C, H, W)."""
    init_default_scope(scope)
    if scope == 'mmpretrain':
        return MODELS.build(preprocessor)(dict(inputs=image[None]))['inputs']
    return MODELS.build(preprocessor)(dict(inputs=[image]))['inputs']


@pytest.mark.parametrize('scope', PREPROCESSORS)
@pytest.mark.parametrize('channels', [1, 3, 4, 6])
@pytest.mark.parametrize('values', [None, 1, 3, 4, 6])
@pytest.mark.parametrize('bgr_to_rgb', [False, True])
def test_an_error_is_what_the_libraries_refuse(scope: str, channels: int, values: int | None, bgr_to_rgb: bool) -> None:
    preprocessor: dict[str, Any] = dict(type=PREPROCESSORS[scope])
    if values:
        preprocessor.update(mean=[1.0] * values, std=[2.0] * values)
    preprocessor['to_rgb' if scope == 'mmpretrain' else 'bgr_to_rgb'] = bgr_to_rgb
    config = Config(
        dict(model=dict(backbone=dict(in_channels=channels), data_preprocessor=preprocessor), default_scope=scope)
    )
    found = list(check_channels(config))
    try:
        works = normalize(scope, preprocessor, torch.zeros(channels, 4, 4)).shape[1] == channels
    except (AssertionError, RuntimeError, IndexError):
        works = False
    assert [problem.level for problem in found] == ([] if works else ['error'])
    if found:
        assert str(channels) in found[0].kind
        assert 'in_channels' in found[0].kind


def test_own_preprocessors_are_not_judged() -> None:
    for model in (
        dict(backbone=dict(in_channels=4), data_preprocessor=dict(type='OwnPreprocessor', mean=[1.0] * 3)),
        dict(backbone=dict(in_channels=4)),
        dict(detector=dict()),
    ):
        assert not list(check_channels(Config(dict(model=model, default_scope='mmdet'))))


@pytest.mark.parametrize(
    ('kind', 'is_error'), [('PVT', True), ('ResNet', True), ('STDCContextPathNet', False), ('Unknown', False)]
)
def test_channels_without_a_key_are_those_of_the_class(kind: str, is_error: bool) -> None:
    """mmseg's STDCContextPathNet gives the channels to another backbone: ``backbone_cfg=dict(in_channels=4)``."""
    preprocessor = dict(type='SegDataPreProcessor', mean=[1.0] * 4, std=[1.0] * 4)
    config = Config(dict(model=dict(backbone=dict(type=kind), data_preprocessor=preprocessor), default_scope='mmseg'))
    assert bool(list(check_channels(config))) == is_error
