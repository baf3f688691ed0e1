"""A learning rate that decays with depth, in models around a backbone."""

import math

import pytest
from mmengine.optim import OptimWrapper, build_optim_wrapper
from small_models import build_small
from torch import nn

from deformable_vit.engine import LayerDecayOptimWrapperConstructor


class Model(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)


class Wrapper(nn.Module):
    """Two models in one, as for semi-supervised training."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = Model(build_small('PVT')), Model(build_small('DAT'))


def build(model: nn.Module, kind: object = LayerDecayOptimWrapperConstructor, **paramwise: object) -> OptimWrapper:
    return build_optim_wrapper(
        model, dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1), constructor=kind, paramwise_cfg=paramwise)
    )


def rates(model: nn.Module, **paramwise: object) -> dict[str, float]:
    """Return the exponent of 1/2 in the learning rate of each parameter."""
    groups = build(model, layer_decay_rate=0.5, **paramwise).optimizer.param_groups
    found = {id(p): -math.log2(group['lr']) for group in groups for p in group['params']}
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def test_layers_of_the_backbone_decay() -> None:
    """The small backbones have 1, 2, 2 and 1 blocks."""
    found = rates(Model(build_small('DAT')))
    assert found['backbone.stages.0.patch_embed.proj.weight'] == 7
    assert found['backbone.stages.2.blocks.1.attn.proj.bias'] == 2
    assert found['backbone.norms.3.weight'] == found['head.weight'] == 0
    assert set(found.values()) == set(range(8))
    found = rates(Wrapper())
    assert found['student.backbone.stages.0.pos_embed'] == found['teacher.backbone.stages.0.patch_embed.norm.bias'] == 7
    assert found['student.head.bias'] == 0


def test_other_settings_stay() -> None:
    model = Model(build_small('DAT', frozen_stages=0))
    found = rates(model, custom_keys={'mlp': dict(lr_mult=0.25, decay_mult=0.0)}, norm_decay_mult=0.0)
    assert found['backbone.stages.3.blocks.0.mlp.fc1.weight'] == 1 + 2
    assert 'backbone.stages.0.patch_embed.proj.weight' not in found
    groups = build(model, layer_decay_rate=0.5, norm_decay_mult=0.0).optimizer.param_groups
    assert {g['weight_decay'] for g in groups} == {0.0, 0.1}


def test_it_agrees_with_the_constructor_of_mmpretrain() -> None:
    from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
    from mmpretrain.models import ImageClassifier

    head = dict(type='LinearClsHead', in_channels=160, num_classes=2)
    model = ImageClassifier(dict(type='DAT', arch='test'), head=head)
    names, found = {id(p): name for name, p in model.named_parameters()}, []
    for kind in (LayerDecayOptimWrapperConstructor, LearningRateDecayOptimWrapperConstructor):
        groups = build(model, kind, layer_decay_rate=0.75).optimizer.param_groups
        found.append({names[id(p)]: g['lr'] for g in groups for p in g['params']})
    assert found[0] == pytest.approx(found[1])
    assert len(found[0]) == len(names)


def test_bad_settings_are_refused() -> None:
    model = Model(build_small('PVT'))
    for paramwise in (dict(), dict(norm_decay_mult=0.0), dict(layer_decay_rate=0), dict(layer_decay_rate=1.5)):
        with pytest.raises(ValueError, match='layer_decay_rate must be above 0 and at most 1, got'):
            build(model, **paramwise)
    with pytest.raises(ValueError, match='no part of Linear has get_layer_depth'):
        build(nn.Linear(2, 2), layer_decay_rate=0.5)
