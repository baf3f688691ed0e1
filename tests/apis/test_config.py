"""Reading of configs: wrong paths, and bases of mmdet, mmseg and mmpretrain under other distribution names."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from running import ROOT

from deformable_vit.apis.config import load_config, set_work_dir
from deformable_vit.errors import UserError

DEMO = ROOT / 'configs' / 'demo'


def test_bases_are_found_without_a_distribution_of_the_expected_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the maintained forks."""
    path = tmp_path / 'own.py'
    path.write_text("_base_ = 'mmseg::_base_/models/fpn_r50.py'\ndefault_scope = 'mmseg'\n")
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'no-such-distribution')
    with pytest.raises(Exception, match='no-such-distribution'):
        Config.fromfile(path)
    assert load_config(str(path), {}).model.type == 'EncoderDecoder'
    assert MODULE2PACKAGE['mmdet'] != 'no-such-distribution'


@pytest.mark.slow
def test_configs_of_this_package_are_bases_in_any_directory(tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    for name in ('demo/fpn_dpt_shapes.py', 'dat/retinanet_dat-t_fpn_ms-crop-1x_coco.py', 'pvt/pvt-tiny_8xb128_in1k.py'):
        path.write_text(f"_base_ = 'deformable_vit::{name}'\n")
        assert load_config(str(path), {}).to_dict() == Config.fromfile(ROOT / 'configs' / name).to_dict()
    path.write_text("_base_ = 'deformable_vit::dat/missing.py'\n")
    with pytest.raises(UserError, match='FileNotFoundError: .*configs/dat/missing.py'):
        load_config(str(path), {})


def test_wrong_configs_are_one_line(tmp_path: Path) -> None:
    broken, scope = tmp_path / 'broken.py', tmp_path / 'scope.py'
    broken.write_text('model = dict(')
    scope.write_text("model = dict(type='X')\ndefault_scope = 'mmpose'\n")
    near = DEMO / 'pvt_shape.py'
    for path, message in (
        (near, f'config {near} does not exist; did you mean {DEMO}/pvt_shapes.py?'),
        (tmp_path, f'config {tmp_path} is a directory'),
        (broken, f'config {broken} cannot be read: SyntaxError'),
        (scope, "default_scope 'mmpose' is not mmdet, mmseg or mmpretrain"),
    ):
        with pytest.raises(UserError) as error:
            load_config(str(path), {})
        assert message in str(error.value)


def test_work_directory() -> None:
    config = Config(dict())
    set_work_dir(config, 'configs/a.py', None)
    assert config.work_dir == 'work_dirs/a'
    set_work_dir(config, 'configs/a.py', 'mine')
    assert config.work_dir == 'mine'
