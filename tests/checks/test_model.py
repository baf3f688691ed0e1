"""Channels of neck and head that do not fit, and warm-up that takes more than a tenth of the training."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import CosineAnnealingLR, LinearLR, MultiStepLR
from mmengine.registry import MODELS, DefaultScope
from running import ROOT
from small_models import build_small
from torch import nn

from deformable_vit.checks import check_model, warmup_warning
from deformable_vit.errors import UserError


def model(config: str, **edits: Any) -> tuple[nn.Module, str]:
    loaded = Config.fromfile(ROOT / 'configs' / config)
    loaded.merge_from_dict(edits)
    with DefaultScope.overwrite_default_scope(loaded.default_scope):
        return MODELS.build(loaded.model), loaded.default_scope


def test_channels_that_do_not_fit_are_named() -> None:
    for config, edits, words in (
        ('retinanet_pvtv2', {'model.neck.in_channels': [1, 2, 3]}, 'is [1, 2, 3], but the backbone returns'),
        ('retinanet_pvtv2', {'model.bbox_head.in_channels': 5}, 'model.bbox_head.in_channels is 5'),
        ('fpn_pvt', {'model.neck.in_channels': [8] * 4}, '; set model.neck.in_channels="['),
        ('pvt', {'model.head.in_channels': 7}, 'model.head.in_channels is 7, but gets'),
    ):
        check_model(*model(f'demo/{config}_shapes.py'))
        with pytest.raises(UserError) as caught:
            check_model(*model(f'demo/{config}_shapes.py', **edits))
        assert words in str(caught.value)


def test_segmentation_heads_without_a_neck() -> None:
    from mmseg.models.decode_heads import FCNHead

    def head(channels: list[int]) -> FCNHead:
        settings = dict(input_transform='resize_concat', channels=4, num_classes=2)
        return FCNHead(in_channels=channels, in_index=[0, 3], **settings)

    segmentor = nn.Module()
    segmentor.backbone = build_small('PVTv2')
    first, *_, last = segmentor.backbone.out_channels
    segmentor.decode_head = segmentor.auxiliary_head = head([first, last])
    check_model(segmentor, 'mmseg')
    segmentor.auxiliary_head = head([first + 1, last])
    with pytest.raises(UserError, match=r'model.auxiliary_head.in_channels is'):
        check_model(segmentor, 'mmseg')


def runner(*schedulers: tuple[type, dict], max_epochs: int = 10, epoch_length: int = 20) -> SimpleNamespace:
    """Return what the warning reads of a runner that is about to train."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = []
    for kind, arguments in schedulers:
        converted = arguments.pop('convert_to_iter_based', False)
        build = kind.build_iter_from_epoch if converted else kind
        built.append(build(optimizer, **arguments, **(dict(epoch_length=epoch_length) if converted else {})))
    return SimpleNamespace(param_schedulers=built, max_epochs=max_epochs, max_iters=max_epochs * epoch_length)


STEPS = (MultiStepLR, dict(milestones=[8], by_epoch=True))


@pytest.mark.parametrize('end', [21, 150, 1000])
def test_long_warmup_is_reported_with_its_numbers(end: int) -> None:
    found = warmup_warning(runner((LinearLR, dict(start_factor=0.001, by_epoch=False, end=end)), STEPS))
    assert f'warm-up takes {min(end, 200)} of 200 iterations ({min(end, 200) // 2} %)' in found
    assert 'set param_scheduler.0.end for at most 20 iterations' in found
    assert '\n' not in found


def test_epochs_of_warmup_are_counted_in_iterations() -> None:
    by_epoch = dict(start_factor=0.1, by_epoch=True, begin=0, end=2)
    assert 'warm-up takes 40 of 200 iterations' in warmup_warning(runner(STEPS, (LinearLR, dict(by_epoch))))
    converted = (LinearLR, by_epoch | dict(convert_to_iter_based=True))
    assert 'warm-up takes 40 of 200 iterations' in warmup_warning(runner(converted))
    assert warmup_warning(runner(converted, max_epochs=20)) is None


def test_short_warmup_and_decay_are_not_reported() -> None:
    assert warmup_warning(runner((LinearLR, dict(start_factor=0.001, by_epoch=False, end=20)), STEPS)) is None
    assert warmup_warning(runner((LinearLR, dict(start_factor=1.0, end_factor=0.1, end=10)))) is None
    assert warmup_warning(runner((CosineAnnealingLR, dict(T_max=10, end=10)))) is None
    assert warmup_warning(SimpleNamespace(param_schedulers=None)) is None
