"""Configs of this package are found by name from any directory."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from running import ROOT


def inherit(directory: Path, base: str) -> Config:
    file = directory / 'own.py'
    file.write_text(f'_base_ = {base!r}\n')
    return Config.fromfile(file)


@pytest.mark.parametrize(
    'name',
    ['demo/fpn_dpt_shapes.py', 'dat/retinanet_dat-t_fpn_1x_coco.py', 'pvt/pvt-tiny_8xb128_in1k.py'],
)
def test_an_inherited_config_is_the_config(name: str, tmp_path: Path) -> None:
    """The scopes of what it builds are the same, too."""
    assert inherit(tmp_path, f'deformable_vit::{name}').to_dict() == Config.fromfile(ROOT / 'configs' / name).to_dict()


def test_get_config_reads_the_metafiles() -> None:
    name = 'pvt/pvt-tiny_8xb128_in1k.py'
    config = get_config(f'deformable_vit::{name}', pretrained=True).to_dict()
    assert config.pop('model_path').endswith('/pvt_tiny.pth')
    assert config == Config.fromfile(ROOT / 'configs' / name).to_dict()


def test_a_missing_config_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'deformable_vit::dat/missing\.py'.*configs/dat/missing\.py"):
        inherit(tmp_path, 'deformable_vit::dat/missing.py')


def test_configs_of_other_packages_and_directories_are_found_as_before(tmp_path: Path) -> None:
    name = '_base_/default_runtime.py'
    assert inherit(tmp_path, f'mmdet::{name}').default_scope == 'mmdet'
    (tmp_path / 'base.py').write_text("default_scope = 'mmseg'\n")
    assert inherit(tmp_path, 'base.py').default_scope == 'mmseg'
