"""The package as a whole: public names, registration, the check for compiled ops, what importing it changes."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import MODELS
from running import ROOT

import deformable_vit


def python(code: str, **env: str) -> subprocess.CompletedProcess:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, '-c', code], env=os.environ | env, capture_output=True, text=True, timeout=300, check=False
    )


def test_public_names() -> None:
    assert set(deformable_vit.__all__) == {'DAT', 'DPT', 'PVT', 'PVTv2', '__version__'}
    for name in deformable_vit.__all__:
        assert hasattr(deformable_vit, name)
    assert (Path(deformable_vit.__file__).parent / 'py.typed').is_file()


def test_the_version_is_in_one_place() -> None:
    assert importlib.metadata.version('deformable-vit') == deformable_vit.__version__
    assert f"__version__ = '{deformable_vit.__version__}'" in Path(deformable_vit.__file__).read_text()
    assert deformable_vit.__version__ not in (ROOT / 'pyproject.toml').read_text()


def test_all_openmmlab_packages_find_the_backbones_under_one_name() -> None:
    import mmdet.registry
    import mmpretrain.registry
    import mmseg.registry

    for package in (mmdet, mmseg, mmpretrain):
        for name in ('PVT', 'PVTv2', 'DPT', 'DAT'):
            assert package.registry.MODELS.get(name) is MODELS.get(name) is getattr(deformable_vit, name)
            assert MODELS.get(name).__module__.startswith('deformable_vit.')


def test_mmcv_without_ops_is_one_clear_error(tmp_path: Path) -> None:
    fake = tmp_path / 'mmcv'
    fake.mkdir()
    (fake / '__init__.py').write_text("__version__ = '2.1.0'\n")
    done = python('import deformable_vit', PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('ImportError: deformable_vit needs mmcv with its compiled ops')
    assert 'make setup' in last
    assert '--no-build-isolation' in last


@pytest.mark.slow
def test_custom_imports_of_a_config_register_the_backbones() -> None:
    """As mmdet's own tools import them."""
    code = (
        "from mmengine.config import Config; cfg = Config(dict(custom_imports=dict(imports=['deformable_vit'])));"
        'from mmengine.utils import import_modules_from_strings as load; load(**cfg.custom_imports);'
        "from mmdet.registry import MODELS; print(type(MODELS.build(dict(type='PVTv2', arch='b0'))).__name__)"
    )
    assert python(code).stdout.split()[-1] == 'PVTv2'


@pytest.mark.slow
def test_the_import_changes_how_mmengine_loads_and_nothing_else() -> None:
    """In a process of its own: the state of torch, of warnings, of logging and of mmengine before and after."""
    code = """
import logging, os, sys, warnings
import torch, mmcv, mmengine.runner, mmengine.registry
from mmengine.runner import CheckpointLoader

def state():
    return dict(
        dtype=torch.get_default_dtype(), threads=torch.get_num_threads(), grad=torch.is_grad_enabled(),
        random=torch.get_rng_state().tolist(), fastpath=torch.backends.mha.get_fastpath_enabled(),
        filters=list(warnings.filters), handlers=list(logging.getLogger().handlers), environment=dict(os.environ),
        scope=mmengine.registry.DefaultScope.get_current_instance(), path=list(sys.path), hook=sys.excepthook,
    )

before, schemes = state(), dict(CheckpointLoader._schemes)
import deformable_vit
print([key for key, value in state().items() if value != before[key]])
print(sorted(key for key, value in CheckpointLoader._schemes.items() if value is not schemes.get(key)))
print(any(name.split('.')[0] in ('mmdet', 'mmseg', 'mmpretrain', 'triton') for name in sys.modules))
"""
    done = python(code)
    schemes = ['', 'http://', 'https://', 'open-mmlab://', 'openmmlab://']
    assert done.stdout.splitlines() == ['[]', str(schemes), 'False'], done.stderr


def test_layout() -> None:
    assert not (ROOT / 'projects' / '__init__.py').exists()
    files = [p for directory in ('projects', 'tools', 'tests') for p in (ROOT / directory).rglob('*.py')]
    assert len(files) > 30
    assert [str(p) for p in files if len(p.read_text().splitlines()) > 330] == []
