"""The package as a whole: registration, the check for compiled ops, what must not be there."""

import os
import subprocess
import sys
from pathlib import Path

from mmengine.registry import MODELS
from running import ROOT


def python(code: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', code], env=os.environ | env, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_host_finds_the_backbones_under_one_name() -> None:
    import mmdet.registry
    import mmpretrain.registry
    import mmseg.registry

    for host in (mmdet, mmseg, mmpretrain):
        for name in ('PVT', 'PVTv2', 'DPT', 'DAT'):
            assert host.registry.MODELS.get(name) is MODELS.get(name)
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


def test_the_hosts_own_tools_can_use_it() -> None:
    code = (
        "from mmengine.config import Config; cfg = Config(dict(custom_imports=dict(imports=['deformable_vit'])));"
        'from mmengine.utils import import_modules_from_strings as load; load(**cfg.custom_imports);'
        "from mmdet.registry import MODELS; print(type(MODELS.build(dict(type='PVTv2', arch='b0'))).__name__)"
    )
    assert python(code).stdout.split()[-1] == 'PVTv2'


def test_layout() -> None:
    assert not (ROOT / 'projects' / '__init__.py').exists()
    files = [p for folder in ('projects', 'tools', 'tests') for p in (ROOT / folder).rglob('*.py')]
    assert len(files) > 30
    assert [str(p) for p in files if len(p.read_text().splitlines()) > 330] == []
