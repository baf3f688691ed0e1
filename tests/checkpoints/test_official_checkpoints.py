"""Official checkpoints load unchanged, into backbones and into whole models, and what does not fit is reported."""

import importlib
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import official_parameters, official_state_dict
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from official_names import official_names
from running import ROOT
from torch import Tensor, nn

from deformable_vit.checkpoints import compare, convert_classifier, convert_state_dict
from deformable_vit.errors import CheckpointError

PUBLISHED = official_parameters()
TYPES = dict(pvt='PVT', pvtv2='PVTv2', dpt='DPT', dat='DAT', datpp='DAT')
Log = list[tuple[str, int]]


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def pretrained(checkpoint: str, **kwargs: Any) -> nn.Module:
    """Build a backbone, PVTv2-B0 by default, and load a checkpoint by its ``init_cfg``."""
    kwargs = dict(type='PVTv2', arch='b0', prefix=None) | kwargs
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint, prefix=kwargs.pop('prefix'))
    backbone = MODELS.build(dict(kwargs, init_cfg=init_cfg))
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


def on_meta(model: str, *kinds: str) -> dict[str, Tensor]:
    """Return the official parameters (and ``buffers``) of a published model, without memory."""
    return {k: torch.empty(s, device='meta') for kind in kinds for k, s in PUBLISHED[model][kind].items()}


@pytest.mark.slow
def test_each_published_checkpoint_matches_its_backbone() -> None:
    """Every name and shape; translated back by official_names.py, whose rules are independent, it is the same."""
    for model in PUBLISHED:
        family, arch, is_classifier = *model.partition('_')[0].split('-', 1), model.endswith('_in1k')
        kwargs = dict(pretrain_img_size=384, window_size=12) if arch.endswith('-384') else {}
        if is_classifier and family.startswith('dat'):  # they have no norms of the earlier stages
            kwargs['out_indices'] = (3,)
        arch = arch.removesuffix('-384') + ('++' if family == 'datpp' else '')
        official = on_meta(model, 'parameters', 'buffers')
        with torch.device('meta'):
            backbone = MODELS.build(dict(type=TYPES[family], arch=arch, **kwargs))
        own = backbone.state_dict()
        converted = convert_state_dict(backbone, official)
        difference = compare(converted, own)
        assert not difference, (model, str(difference))
        again = convert_state_dict(backbone, converted)
        assert list(again) == list(converted), model
        assert all(again[name] is value for name, value in converted.items()), model
        if is_classifier:
            classifier = convert_classifier(on_meta(model, 'parameters'))
            assert len(classifier) == len(PUBLISHED[model]['parameters'])
            assert all(k.startswith(('backbone.stages.', 'backbone.norms.3.', 'head.fc.')) for k in classifier)
        else:
            back = official_names({f'backbone.{k}': v for k, v in converted.items()}, family)
            found = {k.removeprefix('backbone.'): list(v.shape) for k, v in back.items()}
            assert found == PUBLISHED[model]['parameters']


def test_classifiers_and_detectors_load_into_backbones(tmp_path: Path, log: Log) -> None:
    """Bare, under a key, and as a part of a whole model; with all values where they belong."""
    official = official_state_dict('pvtv2-b0_backbone')
    detector = {f'backbone.{k}': v for k, v in official.items()} | {'bbox_head.retina_cls.bias': torch.zeros(3)}
    for content in (
        official_state_dict('pvtv2-b0_in1k'),
        {'model': official, 'optimizer': {}, 'epoch': 3},
        {'meta': {}, 'state_dict': detector},
    ):
        own = pretrained(save(tmp_path / 'x.pth', content)).state_dict()
        assert torch.equal(own['stages.1.blocks.0.mlp.dwconv.weight'], official['block2.0.mlp.dwconv.dwconv.weight'])
        assert torch.equal(own['stages.3.norm.bias'], official['norm4.bias'])
        assert log[-1][0].endswith(f'x.pth: {len(own)} of {len(own)} parameters match, none is unexpected')
        assert log[-1][1] == logging.INFO
    whole = nn.Module()
    whole.backbone = MODELS.build(dict(type='PVTv2', arch='b0'))
    whole.load_state_dict({k: v for k, v in detector.items() if k.startswith('backbone.')})
    assert all(torch.equal(value, own[name]) for name, value in whole.backbone.state_dict().items())
    pretrained(save(tmp_path / 'x.pth', official_state_dict('dat-tiny_in1k')), type='DAT', arch='tiny')
    assert '207 of 213 parameters match, 6 missing (norms.0.weight, norms.0.bias, norms.1.weight' in log[-1][0]
    assert log[-1][1] == logging.INFO  # which is expected


@pytest.mark.slow
@pytest.mark.parametrize('family', ['pvt', 'pvtv2', 'dpt', 'dat', 'dat-pp'])
def test_official_detectors_and_segmentors_load_strictly(tmp_path: Path, family: str) -> None:
    """mmdet 2.x and mmseg 0.x named heads as today, so that only the names of the backbone differ."""
    for head in ('retinanet', 'mask-rcnn', 'fpn'):
        config = Config.fromfile(ROOT / 'configs' / 'demo' / f'{head}_{family}_shapes.py')
        init_default_scope(config.default_scope)
        registry = importlib.import_module(f'{config.default_scope}.registry').MODELS
        model, again = registry.build(config.model), registry.build(config.model)
        official = official_names(model.state_dict(), family.replace('-', ''))
        assert any(k.startswith(('backbone.patch_embed1.', 'backbone.patch_proj.')) for k in official)
        path = save(tmp_path / 'official.pth', {'meta': {'epoch': 12}, 'state_dict': official})
        load_checkpoint(again, path, strict=True)
        for key, value in model.state_dict().items():
            assert torch.equal(value, again.state_dict()[key]), key
        assert not compare(convert_state_dict(model, official), model.state_dict())


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


@pytest.mark.parametrize('prefix', [None, 'encoder', 'encoder.'])
def test_converted_checkpoints_load_too_also_a_part_of_them(tmp_path: Path, prefix: str | None, log: Log) -> None:
    first = MODELS.build(dict(type='PVTv2', arch='b0')).state_dict()
    content = {f'encoder.{k}': v for k, v in first.items()} if prefix else first
    second = pretrained(save(tmp_path / 'x.pth', content), prefix=prefix)
    assert log[-1][0].endswith('none is unexpected')
    assert all(torch.equal(value, first[key]) for key, value in second.state_dict().items())


def test_what_does_not_fit_is_reported(tmp_path: Path, log: Log) -> None:
    official = official_state_dict('pvtv2-b0_in1k')
    official['block1.0.attn.q.weight'] = torch.zeros(3, 3)
    official['surplus'] = torch.zeros(1)
    del official['block2.1.norm1.bias']
    backbone = pretrained(save(tmp_path / 'x.pth', official))
    ((text, level),) = log
    assert level == logging.WARNING
    assert '1 missing (stages.1.blocks.1.norm1.bias)' in text
    assert '1 unexpected (surplus)' in text
    assert '1 mismatched (stages.0.blocks.0.attn.q.weight: (3, 3) in the checkpoint, (32, 32) in the model)' in text
    assert torch.equal(backbone.state_dict()['stages.0.blocks.0.attn.q.bias'], official['block1.0.attn.q.bias'])


def test_checkpoints_of_other_models_are_named(tmp_path: Path) -> None:
    resnet = {'layer1.0.conv1.weight': torch.zeros(1), 'fc.bias': torch.zeros(1)}
    path = save(tmp_path / 'resnet.pth', resnet)
    with pytest.raises(CheckpointError, match=r'nothing in .*resnet.pth fits this PVTv2: 0 of \d+ .*layer1.0.conv1'):
        pretrained(path)
    with pytest.raises(CheckpointError, match=r'gone.pth does not exist; .*init_cfg=None'):
        pretrained('gone.pth')
    integers = {k: v.int() for k, v in official_state_dict('pvtv2-b0_in1k').items()}
    with pytest.raises(CheckpointError, match=r'does not fit: stages.* is torch.int32 in it and torch.float32 in'):
        pretrained(save(tmp_path / 'x.pth', integers))
    for other in (resnet, official_state_dict('pvtv2-b0_backbone')):
        with pytest.raises(CheckpointError, match='not an official PVT, DPT or DAT classifier; its names begin with'):
            convert_classifier(other)
