"""Heads of mmdet and mmseg beyond the papers of the backbones: official checkpoints, equality with OpenMMLab, decays.

``official_heads.json`` holds names and shapes of the state dicts that the official configs (whai362/PVT, detection)
build with mmdet 2.13.0, without the backbone.
"""

import json
from pathlib import Path

import pytest
from config_files import CONFIGS, build, head, load
from golden import DATA, official_parameters
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from official_names import official_names
from running import ROOT

BACKBONES = official_parameters()
HEADS = json.loads((DATA / 'official_heads.json').read_text())
MASK2FORMER = [p for p in CONFIGS if head(p).startswith('mask2former') and p.parent.name != 'demo']


@pytest.mark.parametrize('size', ['b2', 'b2-li'])
@pytest.mark.parametrize('kind', HEADS)
def test_official_detector_has_the_same_parameters(kind: str, size: str) -> None:
    config = ROOT / 'configs' / 'pvtv2' / f'{kind.replace("_", "-")}_pvtv2-{size}_fpn_ms-3x_coco.py'
    model = build(load(config))
    backbone = BACKBONES[f'pvtv2-{size}_backbone']['parameters']
    expected = {f'backbone.{name}': shape for name, shape in backbone.items()} | HEADS[kind]
    assert {k: list(v.shape) for k, v in official_names(model.state_dict(), 'pvtv2').items()} == expected


def test_gfl_has_the_parameters_that_the_official_script_prints() -> None:
    model = build(load(ROOT / 'configs' / 'pvtv2' / 'gfl_pvtv2-b2_fpn_ms-crop-3x_coco.py'))
    assert f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f}' == '33.11'


@pytest.mark.parametrize('kind', ['atss', 'gfl'])
def test_copied_model_is_that_of_mmdet(kind: str, tmp_path: Path) -> None:
    file = tmp_path / 'config.py'
    file.write_text(f"_base_ = 'mmdet::{kind}/{kind}_r50_fpn_1x_coco.py'")
    model = load(file).model
    del model.backbone, model.neck.in_channels, model._scope_
    assert Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / f'{kind}_fpn.py').model == model


@pytest.mark.parametrize('path', MASK2FORMER, ids=lambda p: p.stem)
def test_mask2former_trains_the_backbone_as_a_swin_transformer(path: Path) -> None:
    """A tenth of the learning rate; no weight decay for norms, embeddings, queries and position bias tables."""
    config = load(path)
    model = build(config)
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    settings = {id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']}
    norms = ('norm', '.gn.')
    tables = ('pos_embed', 'query_embed', 'query_feat', 'level_embed', 'rpe_table', 'relative_position_bias_table')
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = any(part in name for part in (*norms, *tables))
        lr = 1e-5 if name.startswith('backbone.') else 1e-4
        assert settings[id(parameter)] == (pytest.approx(lr), 0.0 if exempt else 0.05), name
