"""tools/setup.sh with a fake Python: its steps, its errors, and that an interrupted set-up continues."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import ROOT

pytestmark = pytest.mark.slow

# Answers like python, pip and venv as far as setup.sh asks, and records what it is asked to install.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip --version") ;;
  "-m pip install "*)
    echo "install ${@:4}" >>"$LOG"
    if [ -n "${HANG:-}" ]; then sleep 60; fi
    if [ -n "${PIP_SAYS:-}" ]; then echo "$PIP_SAYS"; exit 1; fi
    case "$*" in *nvidia-cuda-nvcc*)
      toolkit=.venv/lib/nvidia/cu13
      mkdir -p $toolkit/{bin,include,lib} && touch $toolkit/include/{cuda_runtime,cusparse}.h
      cp "$FAKE_NVCC" $toolkit/bin/nvcc ;;
    esac ;;
  "-m pip download "*)
    while [ "$1" != -d ]; do shift; done
    mkdir -p "$2" && : >"$2/$MMCV.tar.gz" ;;
  "tools/build_mmcv.py "*)
    echo "build ${@:4} arch=${TORCH_CUDA_ARCH_LIST:-} toolkit=${CUDA_HOME:-}" >>"$LOG"
    [ -z "${HANG_BUILD:-}" ] || exec -a "$0 $*" sleep 60
    [ -z "${FAIL_BUILD:-}" ] || exit 1
    mkdir -p "$3/out" && : >"$3/attempt0.log" && : >"$3/out/$MMCV-cp311-none-any.whl" ;;
  "-c import sys; print('cp"*) echo cp311 ;;
  "-c import sysconfig"*) echo "$PWD/.venv/lib" ;;
  "-c import "*) ;;
  "--version") echo "Python 3.11.0" ;;
  "-") exec "$REAL_PYTHON" "$FAKE_MODULES/run.py" ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""
# Runs the Python that setup.sh passes on stdin, on a machine of which the environment tells.
RUN = """
import os, sys, sysconfig
if os.environ.get('NO_HEADERS'):
    sysconfig.get_paths = lambda: {'include': '/nowhere'}
exec(sys.stdin.read())
"""
TORCH = """
import os
__version__ = '2.14.1'
class version:
    cuda = os.environ.get('TORCH_CUDA') or None
class cuda:
    is_available = lambda: bool(os.environ.get('GPU'))
    device_count = lambda: 1
    get_device_capability = lambda i: (9, 0)
"""
# What setup.sh runs from PATH; a command that is left out is missing on the machine.
COMMANDS = (
    'awk basename bash cat chmod cp cut dirname du env find flock grep head mkdir mv nproc rm sed setsid sha256sum '
    'sleep tail touch ln'
)


class Checkout:
    """A directory with the set-up of the project and nothing else, on a machine with these commands alone."""

    def __init__(self, root: Path) -> None:
        self.root, self.wheels, self.log, self.bin = root / 'project', root / 'wheels', root / 'log', root / 'bin'
        (self.root / 'tools').mkdir(parents=True)
        files = ('requirements.txt', 'requirements-onedl.txt', 'pyproject.toml')
        for name in (*files, 'tools/setup.sh', 'tools/_setup_checks.sh', 'tools/build_mmcv.py'):
            shutil.copy(ROOT / name, self.root / name)
        self.gpu = root / 'nvidiactl'
        script = self.root / 'tools' / 'setup.sh'
        script.write_text(script.read_text().replace('/dev/nvidiactl', str(self.gpu)).replace('/usr/local/cuda', '/no'))
        self.bin.mkdir()
        for name in COMMANDS.split():
            (self.bin / name).symlink_to(shutil.which(name) or name)
        self.command('g++', 'exit 0')
        self.command('df', 'echo "/dev/disk 99999 0 ${FREE:-99999} 0% /mnt"')
        python = self.command('python3.11', FAKE_PYTHON)
        modules = root / 'modules'
        modules.mkdir()
        (modules / 'run.py').write_text(RUN)
        (modules / 'torch.py').write_text(TORCH)
        unwanted = ('CUDA', 'TORCH', 'STACK', 'CPATH', 'PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL')
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)} | dict(
            PATH=str(self.bin), PYTHON=str(python), LOG=str(self.log), DEFORMABLE_VIT_WHEELS=str(self.wheels),
            DEFORMABLE_VIT_CUDA='', MMCV='mmcv-2.1.0', REAL_PYTHON=sys.executable, FAKE_MODULES=str(modules),
            FAKE_NVCC=str(self.command('fake_nvcc', 'echo "Cuda compilation tools, release 13.0, V13.0.88"')),
        )  # fmt: skip

    def command(self, name: str, text: str) -> Path:
        """Add a command to PATH."""
        path = self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.startswith('#!') else f'#!/usr/bin/env bash\n{text}\n')
        path.chmod(0o755)
        return path

    def start(self, **env: str) -> subprocess.Popen:
        self.log.write_text('')
        return subprocess.Popen(
            ['bash', 'tools/setup.sh'], cwd=self.root, env=self.env | env, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, code: int = 0, **env: str) -> str:
        process = self.start(**env)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code, out
        return out

    def error(self, **env: str) -> str:
        """Run a set-up that fails; return its message, which is one line."""
        out = self.run(code=1, **env)
        assert out.count('error:') == 1
        return out.splitlines()[-1]

    def kill_when(self, line: str, **env: str) -> None:
        process = self.start(**env)
        deadline = time.monotonic() + 30
        while line not in self.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # Also the build, which has a session of its own.
        for directory in Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):  # the process may end meanwhile
                if str(self.wheels).encode() in (directory / 'cmdline').read_bytes():
                    os.kill(int(directory.name), signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    @property
    def steps(self) -> list[str]:
        """Lines that say what was installed and built."""
        return self.log.read_text().splitlines()

    @property
    def wheel(self) -> Path:
        return self.wheels / 'torch2.14.1-cp311-cpu' / 'mmcv-2.1.0-cp311-none-any.whl'


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_second_call_does_nothing(checkout: Checkout) -> None:
    out = checkout.run()
    assert 'minutes' in out  # long steps announce their time
    steps = checkout.steps
    assert 'torch==2.14.1 torchvision==0.29.1' in steps[0]
    assert steps[1].startswith('build')
    assert steps[1].split()[1:3] == ['--torch', '2.14.1']
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


def test_killed_installation_starts_again(checkout: Checkout) -> None:
    checkout.kill_when('install', HANG='1')
    assert (checkout.root / '.venv' / '.changing').exists()
    (checkout.root / '.venv' / 'half').touch()
    out = checkout.run()
    assert 'creating .venv again' in out
    assert not (checkout.root / '.venv' / 'half').exists()
    assert (checkout.root / '.venv' / '.ready').exists()


def test_killed_build_continues(checkout: Checkout) -> None:
    checkout.kill_when('build', HANG_BUILD='1')
    assert not checkout.wheel.exists()
    # What is compiled is kept, and the next call continues in the same directory.
    build = checkout.wheel.parent / 'build-mmcv-2.1.0'
    assert (build / 'sdist' / 'mmcv-2.1.0.tar.gz').exists()
    checkout.run()
    assert checkout.wheel.exists()
    assert not build.exists()


def test_failed_build_stops_the_set_up(checkout: Checkout) -> None:
    assert 'mmcv was not built' in checkout.error(FAIL_BUILD='1')
    assert not checkout.wheel.exists()


def test_another_torch_is_installed_on_request(checkout: Checkout) -> None:
    checkout.run(TORCH='2.12.1')
    steps = checkout.steps
    assert 'torch==2.12.1 torchvision==0.27.1' in steps[0]
    assert steps[1].split()[1:3] == ['--torch', '2.12.1']
    assert 'torch==2.12.1' in steps[3]
    assert checkout.run() == ''  # .venv keeps its settings
    checkout.run(TORCH='2.14.1')
    assert 'torch==2.14.1 torchvision==0.29.1' in checkout.steps[0]


def test_another_python_replaces_the_environment(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / '.venv' / 'old').touch()
    other = checkout.bin / 'python3.12'
    shutil.copy(checkout.env['PYTHON'], other)
    assert 'PYTHON has changed' in checkout.run(PYTHON=str(other))
    assert not (checkout.root / '.venv' / 'old').exists()


def test_another_stack_replaces_the_environment(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / '.venv' / 'old').touch()
    assert 'STACK has changed' in checkout.run(STACK='onedl', MMCV='onedl_mmcv-2.3.6')
    assert not (checkout.root / '.venv' / 'old').exists()
    assert str(checkout.wheel.with_name('onedl_mmcv-2.3.6-cp311-none-any.whl')) in checkout.steps[2]
    assert checkout.wheel.exists()  # the other stack's stays beside it
    requirements = (checkout.root / '.venv' / 'requirements.txt').read_text().split('\n')
    assert 'onedl-mmdetection==3.5.1' in requirements
    assert not any(line.startswith(('mm', 'torch')) for line in requirements)
    assert any(line.startswith('pycocotools') for line in requirements)
    assert checkout.run() == ''  # .venv keeps its settings
    assert 'STACK has changed' in checkout.run(STACK='openmmlab')
    assert checkout.run() == ''
    assert 'use openmmlab (the default) or onedl' in checkout.error(STACK='other')


# --- the CUDA ops ----------------------------------------------------------------------------------------------------


def test_gpu_takes_the_compiler_from_pypi(checkout: Checkout) -> None:
    checkout.gpu.touch()
    checkout.command('nvcc', 'echo "Cuda compilation tools, release 12.8, V12.8.61"')  # not of torch's major version
    assert 'minutes for each of 9.0' in checkout.run(GPU='1', TORCH_CUDA='13.0')
    packages, build = checkout.steps[1:3]
    assert packages.split()[-4:] == [
        f'nvidia-{name}==13.0.*' for name in ('cuda-nvcc', 'cuda-cccl', 'cuda-crt', 'nvvm')
    ]
    toolkit = checkout.root / '.venv' / 'lib' / 'nvidia' / 'cu13'
    assert build.split()[-3:] == ['--cuda', 'arch=9.0', f'toolkit={toolkit}']
    assert (toolkit / 'lib64').readlink() == Path('lib')
    assert (toolkit / 'lib' / 'libcudart.so').readlink() == Path('libcudart.so.13')
    assert (checkout.wheels / 'torch2.14.1-cp311-cu130-sm90' / 'mmcv-2.1.0-cp311-none-any.whl').exists()
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
    assert (checkout.wheels / 'torch2.14.1-cp311-cu131-sm80-sm90ptx').exists()
    assert not any('nvidia-cuda-nvcc' in step for step in checkout.steps)
    # A toolkit without the libraries' headers, like a wrapper of nvcc, is not enough.
    (toolkit / 'include' / 'cusparse.h').unlink()
    checkout.run(**env | {'TORCH_CUDA': '13.0'}, TORCH_CUDA_ARCH_LIST='9.0')
    assert any('nvidia-cuda-nvcc==13.0.*' in step for step in checkout.steps)


def test_cuda_without_a_gpu_needs_architectures(checkout: Checkout) -> None:
    message = checkout.error(DEFORMABLE_VIT_CUDA='1', TORCH_CUDA='13.0')
    assert 'TORCH_CUDA_ARCH_LIST is not set, for example TORCH_CUDA_ARCH_LIST="8.0 9.0"' in message
    message = checkout.error(DEFORMABLE_VIT_CUDA='1', TORCH_CUDA_ARCH_LIST='9.0')
    assert 'torch 2.14.1 is a CPU build: correct that, or set DEFORMABLE_VIT_CUDA=0' in message
    message = checkout.error(DEFORMABLE_VIT_CUDA='1', TORCH_CUDA_ARCH_LIST='9.0', TORCH_CUDA='12.8')
    assert 'there is no CUDA 12 toolkit for torch 2.14.1: install one' in message
    assert 'use 1 to compile' in checkout.error(DEFORMABLE_VIT_CUDA='yes')


def test_gpu_that_torch_cannot_use_gives_cpu_ops_and_a_note(checkout: Checkout) -> None:
    checkout.gpu.touch()
    assert 'there is a GPU, but torch 2.14.1 is a CPU build: mmcv gets its CPU ops only' in checkout.run()
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
            'pip cannot reach the package index for installing torch 2.14.1 and torchvision: check the network',
        ),
        ('OSError: [Errno 28] No space left on device', 'the disk became full while pip was installing torch'),
        (
            'ERROR: No matching distribution found for torch==2.14.1',
            'the package index has no torch==2.14.1 for Python 3.11.0 on this machine',
        ),
        ('something else', 'pip failed while installing torch 2.14.1 and torchvision; the whole log is .venv/pip.log'),
    ],
    ids=['network', 'disk', 'package', 'other'],
)
def test_failure_of_pip_is_one_line_with_its_reason(checkout: Checkout, log: str, message: str) -> None:
    assert message in checkout.error(PIP_SAYS=log)
