"""The wheel and the source distribution: what they hold, and that the installed wheel trains."""

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest
from running import ROOT

import deformable_vit
from deformable_vit.datasets import ShapesSettings, write_shapes

NAME = f'deformable_vit-{deformable_vit.__version__}'
MIM = 'projects/deformable_vit/.mim/'
# The tools that need no checkout.
TOOLS = {'convert_checkpoint.py', 'get_flops.py', 'make_shapes.py', 'test.py', 'train.py', 'visualize_attention.py'} | {
    f'{launcher}_{task}.sh' for launcher in ('dist', 'slurm') for task in ('train', 'test')
}
RUNNER = """
import sys
from mmengine.config import Config
from mmengine.runner import Runner

config = Config.fromfile(sys.argv[1])
import deformable_vit
print('imported', deformable_vit.__file__)
runner = Runner.from_cfg(config)
runner.train()
print('iterations', runner.iter)
"""
DETECTOR = """
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='DAT', arch='tiny', out_indices=(1, 2, 3)),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
    bbox_head=dict(num_classes=5),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='shapes/coco/',
        metainfo=dict(classes=('disc', 'triangle', 'square', 'star', 'ring')),
        pipeline=train_pipeline,
    ),
)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1)
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
param_scheduler = []
work_dir = 'detector'
"""
CLASSIFIER = """
_base_ = 'deformable_vit::demo/pvt_shapes.py'
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='shapes/imagenet')
)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1)
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
param_scheduler = []
"""


def run(*command: object, cwd: Path, **env: str) -> str:
    """Run a command without this checkout on Python's path, and return what it printed."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=inherited | {'CUDA_VISIBLE_DEVICES': ''} | env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@cache
def tracked() -> list[str]:
    """Return the files of the repository when the first test began, also those that are not committed yet."""
    listed = run('git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z', cwd=ROOT).split('\0')
    return sorted(name for name in set(listed) if name and (ROOT / name).exists())


@pytest.fixture(scope='module')
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and from it the wheel, in a copy of the checkout."""
    if not (ROOT / '.git').exists():
        pytest.skip('needs a clone: git lists the files that belong to the repository')
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('dist')
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, cwd=source)
    return out


@pytest.fixture(scope='module')
def wheel(dist: Path) -> Path:
    return dist / f'{NAME}-py3-none-any.whl'


@pytest.fixture(scope='module')
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a virtual environment with the wheel that sees the packages of this one, except for this checkout.

    Links to checkouts are .pth files, and Python does not read those of a directory that a .pth file adds. Neither does
    it read that of setuptools, which provides distutils from Python 3.12 on.
    """
    root = tmp_path_factory.mktemp('environment')
    run(sys.executable, '-m', 'venv', '--without-pip', root, cwd=root)
    python = root / 'bin' / 'python'
    packages = Path(run(python, '-c', "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=root).strip())
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', wheel, cwd=root)
    distutils = 'import _distutils_hack; _distutils_hack.add_shim()'
    (packages / 'stack.pth').write_text(f'{sysconfig.get_paths()["purelib"]}\n{distutils}\n')
    return python


@pytest.mark.slow
def test_wheel_holds_the_package_its_configs_and_nothing_else(wheel: Path) -> None:
    package = {name.removeprefix('projects/') for name in tracked() if name.startswith('projects/')}
    package = {name for name in package if name.endswith(('.py', 'py.typed')) or '/page/' in name}
    configs = {f'deformable_vit/.mim/{name}' for name in tracked() if name.startswith('configs/')}
    private = {Path(name).name for name in tracked() if name.startswith('tools/_') and name.endswith('.py')}
    tools = {f'deformable_vit/.mim/tools/{name}' for name in TOOLS | private}
    metadata = {f'{NAME}.dist-info/{name}' for name in ('METADATA', 'RECORD', 'WHEEL', 'top_level.txt')}
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == package | configs | tools | metadata | {
            'deformable_vit/.mim/model-index.yml',
            f'{NAME}.dist-info/licenses/LICENSE',
        }
        for name in ('configs/dat/metafile.yml', 'model-index.yml', 'tools/train.py'):
            assert archive.read(f'deformable_vit/.mim/{name}') == (ROOT / name).read_bytes()


@pytest.mark.slow
def test_sdist_holds_what_the_repository_tracks(dist: Path) -> None:
    generated = {'PKG-INFO', 'setup.cfg'} | {
        f'projects/deformable_vit.egg-info/{name}'
        for name in ('PKG-INFO', 'SOURCES.txt', 'dependency_links.txt', 'requires.txt', 'top_level.txt')
    }
    with tarfile.open(dist / f'{NAME}.tar.gz') as archive:
        files = {member.name.removeprefix(f'{NAME}/') for member in archive if not member.isdir()}
    linked = {name for name in files if name.startswith(MIM)}
    assert files - linked - generated == {name for name in tracked() if not name.startswith(MIM)}
    # An archive of Python's has files where the repository has links: what the wheel needs of them.
    assert linked <= {MIM + name for name in files}
    assert {MIM + name for name in files if name.startswith('configs/')} <= linked


@pytest.mark.slow
def test_metadata_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f'{NAME}.dist-info/METADATA'))
    assert metadata['Version'] == deformable_vit.__version__
    assert metadata['License-Expression'] == 'Apache-2.0'
    assert set(metadata['Requires-Python'].split(',')) == {'>=3.11', '<3.14'}
    assert metadata.get_payload().startswith('# deformable-vit')
    required = [line for line in metadata.get_all('Requires-Dist') if 'extra ==' not in line]
    assert not [line for line in required if line.startswith(('mm', 'onedl'))], 'would add OpenMMLab beside the forks'


def test_extras_and_classifiers_agree_with_the_pins() -> None:
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    pins = {
        line.split('  #')[0]
        for name in ('requirements.txt', 'requirements-onedl.txt')
        for line in (ROOT / name).read_text().splitlines()
    }
    for extra, prefix in {'openmmlab': 'mm', 'onedl': 'onedl-mm'}.items():
        listed = project['optional-dependencies'][extra]
        assert set(listed) <= pins
        assert len([line for line in listed if line.startswith(prefix)]) == 5
    versions = [line.split(' :: ')[-1] for line in project['classifiers'] if ':: Python :: 3.' in line]
    assert versions == ['3.11', '3.12', '3.13']


@pytest.mark.slow
def test_installed_wheel_trains_from_another_directory(environment: Path, tmp_path: Path) -> None:
    """mmengine's own Runner, and the tool of the wheel with a config that inherits from the wheel."""
    write_shapes(tmp_path / 'shapes', ShapesSettings(train=2, val=1, objects=4, size=64))
    for name, text in (('runner.py', RUNNER), ('detector.py', DETECTOR), ('classifier.py', CLASSIFIER)):
        (tmp_path / name).write_text(text)
    printed = run(environment, 'runner.py', 'detector.py', cwd=tmp_path)
    (imported,) = (line.split()[1] for line in printed.splitlines() if line.startswith('imported '))
    package = Path(imported).parent
    assert package.is_relative_to(environment.parents[1])
    assert printed.splitlines()[-1] == 'iterations 1'

    run(environment, package / '.mim' / 'tools' / 'train.py', 'classifier.py', cwd=tmp_path)
    assert (tmp_path / 'work_dirs' / 'classifier' / 'last_checkpoint').is_file()
