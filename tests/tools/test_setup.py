"""tools/dev/setup.sh with a fake Python: its steps and settings, interruptions, CUDA, and what a machine lacks."""

import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from running import ROOT
from setup_checkout import TORCH, TORCHVISION, Checkout

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_second_call_does_nothing(checkout: Checkout) -> None:
    out = checkout.run()
    assert 'minutes' in out  # long steps announce their time
    steps = checkout.steps
    assert f'torch=={TORCH} torchvision=={TORCHVISION}' in steps[0]
    # What builds this package and mmcv without build isolation; Python 3.11 brings setuptools 65.
    (build_requirement,) = tomllib.loads((ROOT / 'pyproject.toml').read_text())['build-system']['requires']
    assert build_requirement in steps[0]
    assert steps[1].startswith('build')
    assert steps[1].split()[1:3] == ['--torch', TORCH]
    assert '--cuda' not in steps[1]
    assert str(checkout.wheel) in steps[2]
    assert '.[dev]' in steps[3]
    assert checkout.run() == ''
    assert checkout.steps == []
    # Changed requirements are installed, with the existing wheel.
    with (checkout.root / 'requirements.txt').open('a') as file:
        file.write('tabulate\n')
    checkout.run()
    assert not any(step.startswith('build') for step in checkout.steps)
    checkout.run(TORCH='2.12.1')
    assert 'torch==2.12.1 torchvision setuptools' in checkout.steps[0]
    assert checkout.steps[1].startswith('build')
    assert checkout.run() == ''  # .venv keeps its settings


def test_killed_installation_starts_again(checkout: Checkout) -> None:
    checkout.kill_when('install', HANG='1')
    assert (checkout.root / '.venv' / '.changing').exists()
    (checkout.root / '.venv' / 'half').touch()
    out = checkout.run()
    assert 'creating .venv again' in out
    assert not (checkout.root / '.venv' / 'half').exists()
    assert (checkout.root / '.venv' / '.ready').exists()


def test_build_continues_after_a_kill_and_a_failure(checkout: Checkout) -> None:
    checkout.kill_when('build', HANG_BUILD='1')
    assert 'mmcv was not built' in checkout.error(FAIL_BUILD='1')
    assert not checkout.wheel.exists()
    # What is compiled is kept, and the next call continues in the same directory.
    build = checkout.wheel.parent / 'build-mmcv-2.1.0'
    assert (build / 'sdist' / 'mmcv-2.1.0.tar.gz').exists()
    checkout.run()
    assert checkout.wheel.exists()
    assert not build.exists()


def test_another_python_or_stack_replaces_the_environment(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / '.venv' / 'old').touch()
    assert 'creating .venv again' in checkout.run(STACK='onedl', MMCV='onedl_mmcv-2.3.6')
    assert not (checkout.root / '.venv' / 'old').exists()
    assert str(checkout.wheel.with_name('onedl_mmcv-2.3.6-cp311-none-any.whl')) in checkout.steps[2]
    assert checkout.wheel.exists()  # the other stack's stays beside it
    requirements = (checkout.root / '.venv' / 'requirements.txt').read_text().split('\n')
    assert 'onedl-mmdetection==3.5.1' in requirements
    assert not any(line.startswith(('mm', 'torch')) for line in requirements)
    assert checkout.run() == ''  # .venv keeps its settings
    assert 'creating .venv again' in checkout.run(STACK='openmmlab')
    other = shutil.copy(checkout.env['PYTHON'], checkout.bin / 'python3.12')
    assert 'creating .venv again' in checkout.run(PYTHON=str(other))
    assert 'use openmmlab (the default) or onedl' in checkout.error(STACK='other')


# --- the CUDA ops ----------------------------------------------------------------------------------------------------


def test_gpu_takes_the_compiler_from_pypi(checkout: Checkout) -> None:
    checkout.gpu.touch()
    checkout.command('nvcc', 'echo "Cuda compilation tools, release 12.8, V12.8.61"')  # not of torch's major version
    checkout.run(GPU='1', TORCH_CUDA='13.0')
    packages, build = checkout.steps[1:3]
    assert packages.split()[-4:] == [
        f'nvidia-{name}==13.0.*' for name in ('cuda-nvcc', 'cuda-cccl', 'cuda-crt', 'nvvm')
    ]
    toolkit = checkout.root / '.venv' / 'lib' / 'nvidia' / 'cu13'
    assert build.split()[-3:] == ['--cuda', 'arch=9.0', f'toolkit={toolkit}']
    assert (toolkit / 'lib64').readlink() == Path('lib')
    assert (toolkit / 'lib' / 'libcudart.so').readlink() == Path('libcudart.so.13')
    assert (checkout.wheels / f'torch{TORCH}-cp311-cu130-sm90' / 'mmcv-2.1.0-cp311-none-any.whl').exists()
    assert checkout.run(GPU='1', TORCH_CUDA='13.0') == ''
    assert checkout.steps == []


def test_toolkit_of_the_right_version_is_used(checkout: Checkout, tmp_path: Path) -> None:
    toolkit = tmp_path / 'toolkit'
    (toolkit / 'bin').mkdir(parents=True)
    (toolkit / 'include').mkdir()
    for name in ('cuda_runtime.h', 'cusparse.h'):
        (toolkit / 'include' / name).touch()
    shutil.copy(checkout.env['FAKE_NVCC'], toolkit / 'bin' / 'nvcc')
    env = dict(DEFORMABLE_VIT_CUDA='1', TORCH_CUDA='13.1', CUDA_HOME=str(toolkit))
    checkout.run(**env, TORCH_CUDA_ARCH_LIST='9.0+PTX;8.0')
    assert checkout.steps[1].split()[-2:] == ['arch=8.0;9.0+PTX', f'toolkit={toolkit}']
    assert (checkout.wheels / f'torch{TORCH}-cp311-cu131-sm80-sm90ptx').exists()
    assert not any('nvidia-cuda-nvcc' in step for step in checkout.steps)
    # A toolkit without the libraries' headers, like a wrapper of nvcc, is not enough.
    (toolkit / 'include' / 'cusparse.h').unlink()
    checkout.run(**env | {'TORCH_CUDA': '13.0'}, TORCH_CUDA_ARCH_LIST='9.0')
    assert any('nvidia-cuda-nvcc==13.0.*' in step for step in checkout.steps)


def test_cuda_without_a_gpu_needs_architectures(checkout: Checkout) -> None:
    message = checkout.error(DEFORMABLE_VIT_CUDA='1', TORCH_CUDA='13.0')
    assert 'TORCH_CUDA_ARCH_LIST is not set, for example TORCH_CUDA_ARCH_LIST="8.0 9.0"' in message
    message = checkout.error(DEFORMABLE_VIT_CUDA='1', TORCH_CUDA_ARCH_LIST='9.0')
    assert f'torch {TORCH} is a CPU build: correct that, or set DEFORMABLE_VIT_CUDA=0' in message
    message = checkout.error(DEFORMABLE_VIT_CUDA='1', TORCH_CUDA_ARCH_LIST='9.0', TORCH_CUDA='12.8')
    assert f'there is no CUDA 12 toolkit for torch {TORCH}: install one' in message
    assert 'use 1 to compile' in checkout.error(DEFORMABLE_VIT_CUDA='yes')


def test_gpu_that_torch_cannot_use_gives_cpu_ops_and_a_note(checkout: Checkout) -> None:
    checkout.gpu.touch()
    assert f'there is a GPU, but torch {TORCH} is a CPU build: mmcv gets its CPU ops only' in checkout.run()
    assert checkout.wheel.exists()


# --- what a machine lacks --------------------------------------------------------------------------------------------


def test_missing_python_or_headers_name_the_package_to_install(checkout: Checkout) -> None:
    assert 'no Python 3.11, 3.12 or 3.13 among: no-such-python. On Debian' in checkout.error(PYTHON='no-such-python')
    name = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    message = checkout.error(NO_HEADERS='1')
    assert f'{name} has no C headers (Python.h)' in message
    assert f'apt-get install {name}-dev; or name another Python: make setup PYTHON=' in message
    assert not (checkout.root / '.venv').exists()


def test_missing_or_old_compiler_is_found_before_anything_is_installed(checkout: Checkout) -> None:
    checkout.command('g++', 'if [ $1 = --version ]; then echo "g++ 9.4.0"; else exit 1; fi')
    assert 'g++ 9.4.0 does not compile C++20' in checkout.error()
    (checkout.bin / 'g++').unlink()
    assert 'no g++, which compiles mmcv. On Debian or Ubuntu: apt-get install g++' in checkout.error()
    assert checkout.steps == []
    assert not (checkout.root / '.venv').exists()
    checkout.wheel.parent.mkdir(parents=True)
    checkout.wheel.touch()
    checkout.run()  # nothing is left to compile


def test_failure_of_pip_is_one_line_with_its_reason(checkout: Checkout) -> None:
    installing = f'installing torch {TORCH} and torchvision'
    for log, message in (
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError': /simple/torch/",
            f'pip cannot reach the package index for {installing}: check the network',
        ),
        ('OSError: [Errno 28] No space left on device', f'the disk became full while pip was {installing}'),
        ('something else', f'pip failed while {installing} (see above); log: .venv/pip.log'),
    ):
        assert message in checkout.error(PIP_SAYS=log)
