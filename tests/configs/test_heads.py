"""Heads of mmdet beyond the papers of the backbones: parameters of official checkpoints, equality with mmdet.

``official_heads.json`` holds names and shapes of the state dicts that the official configs (whai362/PVT, detection)
build with mmdet 2.13.0, without the backbone.
"""

import json
from pathlib import Path

from config_files import build, load
from golden import DATA, official_parameters
from mmengine.config import Config
from official_names import official_names
from running import ROOT

CONFIGS = ROOT / 'configs'
HEADS = json.loads((DATA / 'official_heads.json').read_text())


def test_official_detectors_have_the_same_parameters() -> None:
    for kind, head in HEADS.items():
        for size in ('b2', 'b2-li'):
            (path,) = (CONFIGS / 'pvtv2').glob(f'{kind.replace("_", "-")}_pvtv2-{size}_fpn_*ms-crop-3x_coco.py')
            backbone = official_parameters()[f'pvtv2-{size}_backbone']['parameters']
            expected = {f'backbone.{name}': shape for name, shape in backbone.items()} | head
            found = official_names(build(load(path)).state_dict(), 'pvtv2')
            assert {k: list(v.shape) for k, v in found.items()} == expected, path.stem


def test_detectors_have_the_parameters_of_official_checkpoints() -> None:
    """The parameters beyond mmdet's own models, according to the official configs."""

    def names(config: str) -> set[str]:
        return {name for name, _ in build(load(CONFIGS / config)).named_parameters()}

    assert 'neck.fpn_convs.4.conv.weight' in names('dat/mask-rcnn_dat-t-pp_fpn_32xb2-ms-crop-3x_coco.py')
    assert 'neck.fpn_convs.4.conv.weight' not in names('pvtv2/mask-rcnn_pvtv2-b2_fpn_1x_coco.py')
    for config in (
        'dat/cascade-mask-rcnn_dat-t-pp_fpn_32xb2-ms-crop-3x_coco.py',
        'pvtv2/cascade-mask-rcnn_pvtv2-b2_fpn_ms-crop-3x_coco.py',
    ):
        found = names(config)
        assert {f'roi_head.bbox_head.{i}.shared_convs.3.bn.weight' for i in range(3)} <= found
        assert 'roi_head.bbox_head.0.shared_fcs.1.weight' not in found
        assert 'neck.fpn_convs.4.conv.weight' not in found


def test_copied_models_are_those_of_mmdet(tmp_path: Path) -> None:
    for kind in ('atss', 'gfl'):
        file = tmp_path / f'{kind}.py'
        file.write_text(f"_base_ = 'mmdet::{kind}/{kind}_r50_fpn_1x_coco.py'")
        model = load(file).model
        del model.backbone, model.neck.in_channels, model._scope_
        assert Config.fromfile(CONFIGS / '_base_' / 'models' / f'{kind}_fpn.py').model == model
