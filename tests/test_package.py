"""The package as a whole: public names, registration, what it needs, and what importing it changes."""

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


def test_public_names_and_version() -> None:
    assert set(deformable_vit.__all__) == {'DAT', 'DPT', 'PVT', 'PVTv2', '__version__'}
    assert all(hasattr(deformable_vit, name) for name in deformable_vit.__all__)
    assert (Path(deformable_vit.__file__).parent / 'py.typed').is_file()
    assert importlib.metadata.version('deformable-vit') == deformable_vit.__version__
    assert not (ROOT / 'projects' / '__init__.py').exists()  # it would hide other repositories' ``projects``


def test_all_openmmlab_packages_find_the_backbones_under_one_name() -> None:
    import mmdet.registry
    import mmpretrain.registry
    import mmseg.registry

    for package in (mmdet, mmseg, mmpretrain):
        for name in ('PVT', 'PVTv2', 'DPT', 'DAT'):
            assert package.registry.MODELS.get(name) is MODELS.get(name) is getattr(deformable_vit, name)
            assert MODELS.get(name).__module__.startswith('deformable_vit.')


def test_backbones_need_torch_and_mmengine_only() -> None:
    """Where OpenMMLab's other packages cannot be imported; mmcv's ops are asked for by their backend."""
    code = """
import sys, warnings
sys.modules.update(dict.fromkeys(('mmcv', 'mmdet', 'mmseg', 'mmpretrain')))  # each import of them fails
import torch
from deformable_vit import DAT, DPT, PVT, PVTv2
from deformable_vit.ops import use_backend
from deformable_vit.ops.sampling import default_backend

for build, arch in ((PVT, 'test'), (PVTv2, 'test'), (DPT, 'test'), (DAT, 'test'), (DAT, 'test++')):
    model = build(arch, drop_path_rate=0.1)
    for backend in ('auto', 'reference', 'grid_sample'):
        with use_backend(backend):
            sum(out.mean() for out in model(torch.randn(1, 3, 64, 64))).backward()
with warnings.catch_warnings(record=True) as caught:
    print([default_backend(d) for d in ('cpu', 'cuda', 'cuda')], [str(w.message)[:12] for w in caught])
with use_backend('mmcv'):
    DPT('test')(torch.randn(1, 3, 64, 64))
"""
    done = python(code)
    assert done.stdout.strip() == f"""{['grid_sample'] * 3} ["mmcv's compi"]""", done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: the backend 'mmcv' needs mmcv with its compiled ops (No module named 'mmcv.utils'"
    )
    assert '`make setup`' in last
    assert '--no-build-isolation' in last


@pytest.mark.slow
def test_the_import_changes_how_mmengine_loads_and_nothing_else() -> None:
    """In a process of its own: the state of torch, of warnings, of logging and of mmengine before and after."""
    code = """
import logging, os, sys, warnings
import torch, mmengine.runner, mmengine.registry
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
print(all(value is not schemes.get(key) for key, value in CheckpointLoader._schemes.items()))
print(any(name.split('.')[0] in ('mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'triton') for name in sys.modules))
"""
    done = python(code)
    assert done.stdout.splitlines() == ['[]', 'True', 'False'], done.stderr
