"""engine/summary.py: the lines about the optimizer and about the size of images in an evaluation."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from running import ROOT
from torch import nn

from deformable_vit.engine import add_tta
from deformable_vit.engine.summary import evaluation_summary, optimizer_summary


class Model(nn.Module):
    """Two weights, two biases, a norm and a position embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.offset = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.pos_embed = nn.Parameter(torch.zeros(2))


def summary(model: nn.Module, **paramwise: object) -> str:
    optimizer = dict(type='AdamW', lr=1e-4, weight_decay=0.05)
    config = Config(dict(optim_wrapper=dict(optimizer=optimizer, paramwise_cfg=paramwise)))
    return optimizer_summary(model, build_optim_wrapper(model, config.optim_wrapper), config)


def test_parameters_are_counted_by_learning_rate_and_weight_decay() -> None:
    keys = dict(offset=dict(lr_mult=0.1), pos_embed=dict(decay_mult=0.0))
    assert summary(Model(), norm_decay_mult=0.0, custom_keys=keys) == (
        'optimizer: AdamW, 7 parameters in 3 groups: 3 with lr 0.0001, weight decay 0 (norm, pos_embed); '
        '2 with lr 0.0001, weight decay 0.05 (weight, bias); 2 with lr 1e-05, weight decay 0.05 (offset)'
    )


def test_frozen_parameters_are_counted_apart() -> None:
    model = Model()
    model.head.requires_grad_(False)
    assert summary(model).startswith('optimizer: AdamW, 5 parameters: 5 with lr 0.0001')
    assert summary(model).endswith('; 2 frozen')


def test_only_the_largest_groups_of_layer_decay_are_listed() -> None:
    model = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(7))
    keys = {f'{i}.weight': dict(lr_mult=0.5**i) for i in range(7)}
    text = summary(model, custom_keys=keys)
    assert text.startswith('optimizer: AdamW, 7 parameters in 7 groups: 1 with lr 0.0001')
    assert text.endswith('; 3 more groups with lr 1.5625e-06 to 6.25e-06')


def test_the_rate_before_warm_up_is_shown() -> None:
    model = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5)
    assert optimizer.param_groups[0]['lr'] == 0.05
    assert 'lr 0.1, weight decay 0' in optimizer_summary(model, OptimWrapper(optimizer), Config())


def test_several_optimizers_are_named() -> None:
    model = nn.Linear(2, 2)
    wrappers = OptimWrapperDict(
        a=OptimWrapper(torch.optim.SGD([model.weight], lr=0.1)), b=OptimWrapper(torch.optim.SGD([model.bias], lr=0.2))
    )
    assert optimizer_summary(model, wrappers, Config()) == (
        'optimizer a: SGD, 1 parameters: 1 with lr 0.1, weight decay 0 (weight); '
        'optimizer b: SGD, 1 parameters: 1 with lr 0.2, weight decay 0 (bias)'
    )


@pytest.mark.parametrize(
    ('pipeline', 'expected'),
    [
        (
            [
                dict(type='LoadImageFromFile'),
                dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
                dict(type='CenterCrop', crop_size=224),
            ],
            'ResizeEdge 256 (short edge, bicubic, pillow), CenterCrop 224',
        ),
        ([dict(type='Resize', scale=(384, 384), interpolation='bicubic')], 'Resize 384 x 384 (bicubic)'),
        ([dict(type='Resize', scale=(1333, 800), keep_ratio=True)], 'Resize 1333 x 800 (keeps the aspect ratio)'),
        ([dict(type='Resize', scale=384)], 'Resize 384 x 384'),
        ([dict(type='Resize', scale_factor=0.5)], 'Resize 0.5'),
        ([dict(type='LoadImageFromFile')], 'images at their own size'),
    ],
)
def test_evaluation_names_resize_and_crop(pipeline: list[dict], expected: str) -> None:
    dataset = dict(type='RepeatDataset', dataset=dict(type='ImageNet', pipeline=pipeline))
    config = Config(dict(test_dataloader=dict(dataset=dataset)))
    assert evaluation_summary(config) == f'evaluation: {expected}'


def test_evaluation_of_configs_is_described() -> None:
    detector = Config.fromfile(ROOT / 'configs' / 'pvt' / 'retinanet_pvt-t_fpn_1x_coco.py')
    expected = 'evaluation: Resize 1333 x 800 (keeps the aspect ratio)'
    assert evaluation_summary(detector) == expected
    add_tta(detector)
    assert evaluation_summary(detector) == expected
    classifier = Config.fromfile(ROOT / 'configs' / 'pvt' / 'pvt-tiny_8xb128_in1k.py')
    assert 'CenterCrop 224' in evaluation_summary(classifier)
