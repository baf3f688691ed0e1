"""The wheel, built from the source distribution: its tools run and train where there is no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from running import ROOT

from deformable_vit.datasets import ShapesSettings, write_shapes

CLASSIFIER = """
_base_ = {base!r}
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='shapes/imagenet')
)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1)
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
param_scheduler = []
"""
# Each tool in one process, because importing OpenMMLab's packages takes seconds.
HELP = """
import runpy, sys
from pathlib import Path
import deformable_vit

tools = Path(deformable_vit.__file__).parent / '.mim' / 'tools'
for tool in sorted(tools.glob('*.py')):
    sys.argv = [str(tool), '--help']
    sys.path.insert(0, str(tools))
    try:
        runpy.run_path(str(tool), run_name='__main__')
    except SystemExit as end:
        print('status of', tool, end.code)
"""


def run(*command: object, cwd: Path) -> str:
    """Run a command without this checkout on Python's path, and return what it printed."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=inherited | {'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def build_wheel(directory: Path) -> Path:
    """Build the source distribution, and from it the wheel, in a copy of the checkout; return the wheel."""
    source, out = directory / 'source', directory / 'dist'
    # The files of the repository, also those that are not committed yet.
    for name in run('git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z', cwd=ROOT).split('\0'):
        if name and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, cwd=source)
    (wheel,) = out.glob('*.whl')
    return wheel


def install(wheel: Path, root: Path) -> Path:
    """Create a virtual environment with the wheel that sees the packages of this one, except for this checkout.

    Links to checkouts are .pth files, and Python does not read those of a directory that a .pth file adds. Neither does
    it read that of setuptools, which provides distutils from Python 3.12 on.

    Returns:
        The interpreter.
    """
    run(sys.executable, '-m', 'venv', '--without-pip', root, cwd=ROOT)
    python = root / 'bin' / 'python'
    packages = Path(run(python, '-c', "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=root).strip())
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', wheel, cwd=root)
    distutils = 'import _distutils_hack; _distutils_hack.add_shim()'
    (packages / 'stack.pth').write_text(f'{sysconfig.get_paths()["purelib"]}\n{distutils}\n')
    return python


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='needs a clone: git lists the files of the repository')
def test_tools_of_the_wheel_run_from_another_directory(tmp_path: Path) -> None:
    python = install(build_wheel(tmp_path), tmp_path / 'environment')
    statuses = [line.split()[-2:] for line in run(python, '-c', HELP, cwd=tmp_path).splitlines() if 'status of' in line]
    tools = {Path(tool).name: Path(tool) for tool, _ in statuses}
    assert {code for _, code in statuses} == {'0'}
    assert tools.keys() >= {'train.py', 'test.py', 'predict.py', 'check_data.py', 'visualize_attention.py'}
    assert all(tool.is_relative_to(tmp_path / 'environment') for tool in tools.values())

    write_shapes(tmp_path / 'shapes', ShapesSettings(train=2, val=1, objects=4, size=64))
    base = tools['train.py'].parents[1] / 'configs' / 'demo' / 'pvt_shapes.py'
    (tmp_path / 'classifier.py').write_text(CLASSIFIER.format(base=str(base)))
    run(python, tools['train.py'], 'classifier.py', cwd=tmp_path)
    assert (tmp_path / 'work_dirs' / 'classifier' / 'last_checkpoint').is_file()


def test_extras_are_the_pinned_stacks() -> None:
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    text = (ROOT / 'requirements.txt').read_text() + (ROOT / 'requirements-onedl.txt').read_text()
    pins = {line.split('  #')[0] for line in text.splitlines()}
    for extra, prefix in {'openmmlab': 'mm', 'onedl': 'onedl-mm'}.items():
        listed = project['optional-dependencies'][extra]
        assert set(listed) <= pins
        assert len([line for line in listed if line.startswith(prefix)]) == 5
    # One of them in the dependencies would bring its stack beside the other.
    assert not [line for line in project['dependencies'] if line.startswith(('mm', 'onedl'))]
