"""tools/setup.sh: the compiler of the CUDA ops, and one line for each thing that a machine lacks."""

import shutil
import sys
from pathlib import Path

import pytest
from setup_checkout import TORCH, Checkout

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


# --- the CUDA ops ----------------------------------------------------------------------------------------------------


def test_gpu_takes_the_compiler_from_pypi(checkout: Checkout) -> None:
    checkout.gpu.touch()
    checkout.command('nvcc', 'echo "Cuda compilation tools, release 12.8, V12.8.61"')  # not of torch's major version
    assert 'minutes for 9.0' in checkout.run(GPU='1', TORCH_CUDA='13.0')
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
    assert 'there is a GPU, but DEFORMABLE_VIT_CUDA=0' in checkout.run(DEFORMABLE_VIT_CUDA='0', GPU='1')


# --- what a machine lacks --------------------------------------------------------------------------------------------


def test_missing_python_names_the_package_to_install(checkout: Checkout) -> None:
    message = checkout.error(PYTHON='no-such-python')
    assert 'no Python 3.11, 3.12 or 3.13 among: no-such-python' in message
    assert 'apt-get install' in message
    assert not (checkout.root / '.venv').exists()


def test_missing_headers_name_the_package_to_install(checkout: Checkout) -> None:
    name = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    message = checkout.error(NO_HEADERS='1')
    assert f'{name} has no C headers (Python.h)' in message
    assert f'apt-get install {name}-dev; or name another Python: make setup PYTHON=' in message


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


def test_missing_disk_space_is_found_before_anything_is_written(checkout: Checkout) -> None:
    message = checkout.error(FREE='2000')
    assert 'not enough disk space in /mnt: 2000 MB free, ' in message
    assert f'6500 MB in {checkout.root}/.venv for the environment' in message
    assert f'{checkout.wheels} for building mmcv (DEFORMABLE_VIT_WHEELS names another directory)' in message
    assert 'TMPDIR' in message
    assert 'PIP_CACHE_DIR' in message
    assert not (checkout.root / '.venv').exists()
    assert not checkout.wheels.exists()
    assert f'2500 MB in {checkout.root}/.venv' in checkout.error(
        FREE='2000', PIP_INDEX_URL='https://example.org/whl/cpu'
    )


@pytest.mark.parametrize(
    ('log', 'message'),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError': /simple/torch/",
            f'pip cannot reach the package index for installing torch {TORCH} and torchvision: check the network',
        ),
        ('OSError: [Errno 28] No space left on device', 'the disk became full while pip was installing torch'),
        (
            f'ERROR: No matching distribution found for torch=={TORCH}',
            f'the package index has no torch=={TORCH} for Python 3.11.0 on this machine',
        ),
        (
            'something else',
            f'pip failed while installing torch {TORCH} and torchvision; the whole log is .venv/pip.log',
        ),
    ],
    ids=['network', 'disk', 'package', 'other'],
)
def test_failure_of_pip_is_one_line_with_its_reason(checkout: Checkout, log: str, message: str) -> None:
    assert message in checkout.error(PIP_SAYS=log)
