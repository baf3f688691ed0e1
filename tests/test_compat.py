"""Configs of mmdet, mmseg and mmpretrain are found whatever their distributions are called."""

from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from deformable_vit import _compat


def not_installed(name: str) -> None:
    raise PackageNotFoundError(name)


@pytest.fixture(autouse=True)
def _same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, package in MODULE2PACKAGE.items():
        monkeypatch.setitem(MODULE2PACKAGE, module, package)


BASES = {
    'mmdet': 'mmdet::_base_/schedules/schedule_1x.py',
    'mmpretrain': 'mmpretrain::_base_/default_runtime.py',
    'mmseg': 'mmseg::_base_/default_runtime.py',
}


@pytest.mark.parametrize('module', BASES)
def test_configs_are_found_with_the_installed_distributions(module: str) -> None:
    path, scope = Config._get_cfg_path(BASES[module], '')
    assert Path(path).is_file()
    assert (Path(find_spec(module).origin).parent / '.mim').resolve() in Path(path).resolve().parents
    assert scope == module


@pytest.mark.parametrize('module', BASES)
def test_configs_are_found_without_a_distribution_of_the_expected_name(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODULE2PACKAGE, module, f'no-distribution-of-{module}')
    with pytest.raises(Exception, match='no-distribution'):
        Config._get_cfg_path(BASES[module], '')
    _compat.find_configs_by_import_name()
    assert MODULE2PACKAGE[module] == module
    assert Path(Config._get_cfg_path(BASES[module], '')[0]).is_file()


def test_names_of_installed_and_of_missing_packages_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's advice to install a package names its distribution."""
    table = dict(MODULE2PACKAGE)
    monkeypatch.setattr(_compat, 'distribution', lambda _name: object())
    _compat.find_configs_by_import_name()
    assert table == MODULE2PACKAGE
    monkeypatch.setattr(_compat, 'distribution', not_installed)
    monkeypatch.setattr(_compat, 'find_spec', lambda _name: None)
    _compat.find_configs_by_import_name()
    assert table == MODULE2PACKAGE
