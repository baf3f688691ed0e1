"""Official checkpoints load unchanged, into backbones and into whole models, and what does not fit is reported."""

import importlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import official_parameters, official_state_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from official_names import official_names
from running import ROOT
from torch import Tensor, nn

from deformable_vit.checkpoints import CheckpointError, convert_classifier, convert_state_dict
from deformable_vit.checkpoints.names import is_official, translate_names
from deformable_vit.engine import check_checkpoint

PUBLISHED = official_parameters()
Log = list[tuple[str, int]]


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def pretrained(checkpoint: str, **kwargs: Any) -> nn.Module:
    """Build a backbone, PVT-Tiny by default, and load a checkpoint by its ``init_cfg``."""
    kwargs = dict(type='PVT', arch='tiny') | kwargs
    backbone = MODELS.build(dict(kwargs, init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))
    backbone.init_weights()
    return backbone


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Record text and level of what loading logs."""
    said: Log = []
    monkeypatch.setattr(
        'deformable_vit.checkpoints.load.print_log', lambda text, _logger, level: said.append((text, level))
    )
    return said


@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: {'model': x, 'optimizer': {}, 'epoch': 3}])
def test_classifier_loads_into_a_backbone(tmp_path: Path, wrap: Callable[[dict], dict]) -> None:
    official = official_state_dict('pvt-tiny_in1k')
    own = pretrained(save(tmp_path / 'pvt_tiny.pth', wrap(official))).state_dict()
    assert torch.equal(own['stages.0.patch_embed.proj.weight'], official['patch_embed1.proj.weight'])
    assert torch.equal(own['stages.3.blocks.1.mlp.fc2.bias'], official['block4.1.mlp.fc2.bias'])
    assert torch.equal(own['stages.3.pos_embed'], official['pos_embed4'])
    # So does everything else that the backbone has.
    used = {k for k in official if not k.startswith(('head.', 'norm.', 'cls_token'))}
    assert len(own) == len(used)
    assert sum(v.double().sum() for v in own.values()).item() == pytest.approx(
        sum(official[k].double().sum().item() for k in used)
    )


def test_detector_with_pvtv2_loads_into_a_backbone_and_a_model(tmp_path: Path) -> None:
    official = official_state_dict('pvtv2-b0_backbone')
    detector = {f'backbone.{k}': v for k, v in official.items()} | {'bbox_head.retina_cls.weight': torch.zeros(3)}
    path = save(tmp_path / 'retinanet_pvt_v2_b0.pth', {'meta': {'epoch': 12}, 'state_dict': detector})
    own = pretrained(path, type='PVTv2', arch='b0').state_dict()
    assert torch.equal(own['stages.1.blocks.0.mlp.dwconv.weight'], official['block2.0.mlp.dwconv.dwconv.weight'])
    assert torch.equal(own['stages.3.norm.bias'], official['norm4.bias'])

    # The same state dict in a whole model, loaded by torch itself.
    whole = nn.Module()
    whole.backbone = MODELS.build(dict(type='PVTv2', arch='b0'))
    whole.load_state_dict({k: v for k, v in detector.items() if k.startswith('backbone.')})
    for key, value in whole.backbone.state_dict().items():
        assert torch.equal(value, own[key]), key


def test_detector_with_dat_loads_into_a_backbone(tmp_path: Path, log: Log) -> None:
    """Its 1 x 1 convolutions are linear layers here."""
    official = official_state_dict('datpp-tiny_backbone')
    detector = {f'backbone.{k}': v for k, v in official.items()} | {'bbox_head.retina_cls.bias': torch.zeros(3)}
    path = save(tmp_path / 'rtn_dat_t.pth', {'meta': {}, 'state_dict': detector, 'optimizer': {}})
    own = pretrained(path, type='DAT', arch='tiny++').state_dict()
    text, level = log[-1]
    assert text == f'DAT from {path}: 593 of 593 parameters match, none is unexpected'
    assert level == logging.INFO
    assert torch.equal(own['stages.0.patch_embed.second.norm.bias'], official['patch_proj.4.norm.bias'])
    assert torch.equal(own['stages.2.blocks.7.norm2.weight'], official['stages.2.layer_norms.15.norm.weight'])
    attn, name = 'stages.3.blocks.1.attn', 'stages.3.attns.1'
    assert torch.equal(own[f'{attn}.k.weight'], official[f'{name}.proj_k.weight'][:, :, 0, 0])
    assert torch.equal(own[f'{attn}.offset.proj.weight'], official[f'{name}.conv_offset.3.weight'][:, :, 0, 0])
    assert torch.equal(own[f'{attn}.offset.dwconv.weight'], official[f'{name}.conv_offset.0.weight'])
    assert torch.equal(own['norms.1.weight'], official['norms.1.norm.weight'])


def test_dat_classifier_loads_into_a_backbone(tmp_path: Path, log: Log) -> None:
    """It has the norm of the last stage only, and masks of its windows that are derived from the input size."""
    official = official_state_dict('dat-tiny_in1k') | {'stages.0.attns.1.attn_mask': torch.zeros(64, 49, 49)}
    path = save(tmp_path / 'dat_t.pth', {'model': official})
    own = pretrained(path, type='DAT', arch='tiny').state_dict()
    text, _ = log[-1]
    assert '207 of 213 parameters match, 6 missing (norms.0.weight, norms.0.bias, norms.1.weight and 3 more)' in text
    assert '  missing: norms.2.bias' in text
    assert torch.equal(own['norms.3.weight'], official['cls_norm.norm.weight'])
    assert torch.equal(own['stages.1.blocks.0.mlp.fc1.weight'], official['stages.1.mlps.0.chunk.linear1.weight'])
    assert torch.equal(own['stages.1.patch_embed.proj.weight'], official['down_projs.0.0.weight'])


def test_dpt_classifier_loads_into_a_backbone(tmp_path: Path) -> None:
    official = official_state_dict('dpt-tiny_in1k') | {'patch_embed2.box_coder.anchor': torch.zeros(784, 2)}
    own = pretrained(save(tmp_path / 'dpt_tiny.pth', official), type='DPT').state_dict()
    patch = 'stages.1.patch_embed'
    assert torch.equal(own[f'{patch}.wh_bias'], official['patch_embed2.box_coder.wh_bias'])
    assert torch.equal(own[f'{patch}.patch_embed.proj.weight'], official['patch_embed2.patch_embed.proj.weight'])
    assert torch.equal(own[f'{patch}.output_proj.weight'], official['patch_embed2.output_proj.weight'])


FAST = [('pvt', 'retinanet'), ('dat', 'fpn'), ('datpp', 'retinanet')]


@pytest.mark.parametrize(
    ('family', 'head'),
    [
        pytest.param(family, head, marks=() if (family, head) in FAST else pytest.mark.slow)
        for family in ('pvt', 'pvtv2', 'dpt', 'dat', 'datpp')
        for head in ('retinanet', 'mask-rcnn', 'fpn')
    ],
)
def test_official_detectors_and_segmentors_load_strictly(tmp_path: Path, family: str, head: str) -> None:
    """mmdet 2.x and mmseg 0.x named heads as today, so that only the names of the backbone differ."""
    config = Config.fromfile(ROOT / 'configs' / 'demo' / f'{head}_{family}_shapes.py')
    init_default_scope(config.default_scope)
    registry = importlib.import_module(f'{config.default_scope}.registry').MODELS
    model = registry.build(config.model)
    official = official_names(model.state_dict(), family)
    path = save(tmp_path / 'official.pth', {'meta': {'epoch': 12}, 'state_dict': official})
    assert any(k.startswith(('backbone.patch_embed1.', 'backbone.patch_proj.')) for k in official)
    assert check_checkpoint(model, path, strict=True).endswith('none is unexpected')

    again = registry.build(config.model)
    load_checkpoint(again, path, strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key

    converted = convert_state_dict(model, official)
    assert list(converted) != list(official)
    assert converted.keys() == model.state_dict().keys()
    assert convert_state_dict(model, converted).keys() == converted.keys()


def test_dat_plus_has_the_parameters_of_dat_plus_plus_without_convolutions() -> None:
    """According to dat_p.yaml of the official code: no convolutions in stem, blocks and MLPs, kernels of the stride.

    Its MLPs are those of DAT, linear layers.
    """
    removed = ('local_perception_units', '.dwc.', 'patch_proj.3.', 'patch_proj.4.')
    expected = {}
    for name, shape in PUBLISHED['datpp-tiny_in1k']['parameters'].items():
        if any(part in name for part in removed) or name.startswith(('cls_norm.', 'cls_head.')):
            continue
        if found := re.fullmatch(r'(.*\.mlps\.\d+\.)(linear\d)\.0(\..*)', name):
            name, shape = f'{found[1]}chunk.{found[2]}{found[3]}', shape[:2]
        elif name.startswith('down_projs.') and len(shape) == 4:
            shape = [*shape[:2], 2, 2]
        elif name.startswith('patch_proj.'):
            shape = [64, 3, 4, 4] if len(shape) == 4 else [64]
        expected[name] = shape
    with torch.device('meta'):
        backbone = MODELS.build(dict(type='DAT', arch='tiny+', out_indices=(3,)))
    official = official_names({f'backbone.{k}': v for k, v in backbone.state_dict().items()}, 'dat')
    found = {k.removeprefix('backbone.'): list(v.shape) for k, v in official.items() if '.norms.' not in k}
    assert found == expected


def test_converted_checkpoints_load_too(tmp_path: Path) -> None:
    first = MODELS.build(dict(type='PVTv2', arch='b0'))
    second = pretrained(save(tmp_path / 'converted.pth', first.state_dict()), type='PVTv2', arch='b0')
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


@pytest.mark.parametrize('prefix', ['encoder', 'encoder.'])
def test_a_prefix_selects_a_part_of_a_checkpoint(tmp_path: Path, prefix: str, log: Log) -> None:
    first = MODELS.build(dict(type='PVTv2', arch='b0'))
    path = save(tmp_path / 'x.pth', {f'encoder.{k}': v for k, v in first.state_dict().items()})
    second = MODELS.build(
        dict(type='PVTv2', arch='b0', init_cfg=dict(type='Pretrained', checkpoint=path, prefix=prefix))
    )
    second.init_weights()
    assert log[-1][0].endswith('none is unexpected')
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_what_does_not_fit_is_reported(tmp_path: Path, log: Log) -> None:
    official = official_state_dict('pvt-tiny_in1k')
    official['block1.0.attn.q.weight'] = torch.zeros(3, 3)
    official['surplus'] = torch.zeros(1)
    del official['block2.1.norm1.bias']
    backbone = pretrained(save(tmp_path / 'pvt_tiny.pth', official))
    ((text, level),) = log
    assert level == logging.WARNING
    assert '1 missing (stages.1.blocks.1.norm1.bias)' in text
    assert '1 unexpected (surplus)' in text
    assert '1 mismatched (stages.0.blocks.0.attn.q.weight: (3, 3) in the checkpoint, (64, 64) in the model)' in text
    assert torch.equal(backbone.state_dict()['stages.0.blocks.0.attn.q.bias'], official['block1.0.attn.q.bias'])


def test_a_checkpoint_of_another_model_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / 'resnet.pth', {'layer1.0.conv1.weight': torch.zeros(1), 'fc.bias': torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r'nothing in .*resnet.pth fits this PVT: 0 of \d+ parameters match.*layer1.0.conv1'
    ):
        pretrained(path)


def test_a_missing_checkpoint_is_an_error_that_names_alternatives() -> None:
    with pytest.raises(CheckpointError, match=r'gone.pth does not exist; .*README.md .*init_cfg=None'):
        pretrained('gone.pth')


def on_meta(model: str, *kinds: str) -> dict[str, Tensor]:
    """Return the official parameters (and ``buffers``) of a published model, without memory."""
    return {k: torch.empty(s, device='meta') for kind in kinds for k, s in PUBLISHED[model][kind].items()}


@pytest.mark.parametrize('model', [name for name in PUBLISHED if name.endswith('_in1k')])
def test_classifiers_are_converted_by_name(model: str) -> None:
    official = on_meta(model, 'parameters')
    converted = convert_classifier(official)
    assert len(converted) == len(official)
    assert all(k.startswith(('backbone.stages.', 'backbone.norms.3.', 'head.fc.')) for k in converted)


@pytest.mark.parametrize('model', [name for name in PUBLISHED if name.endswith('_backbone')])
def test_translated_names_translate_back(model: str) -> None:
    """The rules of official_names.py are independent of the package's."""
    official = on_meta(model, 'parameters')
    translated = {f'backbone.{k}': v for k, v in translate_names(official).items()}
    back = official_names(translated, model.split('-')[0])
    assert {k.removeprefix('backbone.'): v.shape for k, v in back.items()} == {k: v.shape for k, v in official.items()}


@pytest.mark.parametrize('model', [name for name in PUBLISHED if '-tiny' in name or '-b0' in name or '-li' in name])
def test_names_translate_independently_of_each_other(model: str) -> None:
    official = on_meta(model, 'parameters', 'buffers')
    whole = translate_names(official)
    renamed = dict(zip(on_meta(model, 'parameters'), whole, strict=True))  # buffers are derived and dropped
    assert len(set(renamed.values())) == len(renamed)
    # What identifies an official checkpoint, and DAT++'s stem in it.
    marks = {name for name in official if name.startswith(('patch_embed1.', 'patch_proj.'))}

    @settings(max_examples=20)
    @given(st.sets(st.sampled_from(sorted(official))))
    def check(names: set[str]) -> None:
        part = {name: official[name] for name in sorted(names | marks)}
        assert is_official(part)
        assert set(translate_names(part)) == {renamed[name] for name in part if name in renamed}
        without_marks = {name: value for name, value in part.items() if name not in marks}
        assert translate_names(without_marks) == without_marks

    check()


def test_a_classifier_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match='not an official PVT, DPT or DAT classifier.*conv1.weight'):
        convert_classifier({'conv1.weight': torch.zeros(1)})
    backbone = official_state_dict('pvtv2-b0_backbone')
    with pytest.raises(CheckpointError, match='not an official PVT, DPT or DAT classifier'):
        convert_classifier(backbone)
