"""tools/setup.sh with a fake Python: the order of its steps, and that an interrupted set-up continues."""

import contextlib
import os
import shutil
import signal
import subprocess
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
    if [ -n "${HANG:-}" ]; then sleep 60; fi ;;
  "-m pip download "*)
    while [ "$1" != -d ]; do shift; done
    mkdir -p "$2" && : >"$2/mmcv-2.1.0.tar.gz" ;;
  "tools/build_mmcv.py "*)
    echo "build ${@:4}" >>"$LOG"
    [ -z "${HANG_BUILD:-}" ] || exec -a "$0 $*" sleep 60
    [ -z "${FAIL_BUILD:-}" ] || exit 1
    mkdir -p "$3/out" && : >"$3/unity.log" && : >"$3/out/mmcv-2.1.0-cp311-none-any.whl" ;;
  "-c import sys, torch"*) echo torch2.14.1-cp311 ;;
  "-c import "*) ;;
  "--version") echo "Python 3.11.0" ;;
  "-") cat >/dev/null ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


class Checkout:
    """A directory with the set-up of the project and nothing else."""

    def __init__(self, root: Path) -> None:
        self.root, self.wheels, self.log = root / 'project', root / 'wheels', root / 'log'
        (self.root / 'tools').mkdir(parents=True)
        for name in ('requirements.txt', 'pyproject.toml', 'tools/setup.sh', 'tools/build_mmcv.py'):
            shutil.copy(ROOT / name, self.root / name)
        fake = root / 'python3.11'
        fake.write_text(FAKE_PYTHON)
        fake.chmod(0o755)
        self.env = os.environ | dict(
            PYTHON=str(fake), LOG=str(self.log), DEFORMABLE_VIT_WHEELS=str(self.wheels), DEFORMABLE_VIT_CUDA='0'
        )

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
    def wheel(self) -> Path:
        return self.wheels / 'torch2.14.1-cp311-cpu' / 'mmcv-2.1.0-cp311-none-any.whl'


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_second_call_does_nothing(checkout: Checkout) -> None:
    out = checkout.run()
    assert 'minutes' in out  # long steps announce their time
    steps = checkout.log.read_text().splitlines()
    assert 'torch==2.14.1 torchvision==0.29.1' in steps[0]
    assert steps[1].startswith('build')
    assert steps[1].split()[1:3] == ['--torch', '2.14.1']
    assert '--cuda' not in steps[1]
    assert str(checkout.wheel) in steps[2]
    assert '.[dev]' in steps[3]
    assert checkout.run() == ''
    assert checkout.log.read_text() == ''
    # Changed requirements are installed, with the existing wheel.
    with (checkout.root / 'requirements.txt').open('a') as file:
        file.write('tabulate\n')
    checkout.run()
    assert not any(step.startswith('build') for step in checkout.log.read_text().splitlines())


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
    build = checkout.wheel.parent / 'build'
    assert (build / 'sdist' / 'mmcv-2.1.0.tar.gz').exists()
    checkout.run()
    assert checkout.wheel.exists()
    assert not build.exists()


def test_failed_build_stops_the_set_up(checkout: Checkout) -> None:
    out = checkout.run(code=1, FAIL_BUILD='1')
    assert 'mmcv was not built' in out
    assert not checkout.wheel.exists()


def test_missing_python_names_the_package_to_install(checkout: Checkout) -> None:
    checkout.env['PATH'] = '/usr/bin:/bin'
    out = checkout.run(code=1, PYTHON='no-such-python')
    assert 'no usable Python 3.11, 3.12 or 3.13 among: no-such-python' in out
    assert 'apt-get install' in out


def test_another_torch_is_installed_on_request(checkout: Checkout) -> None:
    checkout.run(TORCH='2.12.1')
    steps = checkout.log.read_text().splitlines()
    assert 'torch==2.12.1 torchvision==0.27.1' in steps[0]
    assert steps[1].split()[1:3] == ['--torch', '2.12.1']
    assert 'torch==2.12.1' in steps[3]
    assert checkout.run(TORCH='2.12.1') == ''
    assert checkout.run() != ''  # the pinned one again


def test_another_python_replaces_the_environment(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / '.venv' / 'old').touch()
    other = Path(checkout.env['PYTHON']).with_name('python3.12')
    shutil.copy(checkout.env['PYTHON'], other)
    assert 'PYTHON has changed' in checkout.run(PYTHON=str(other))
    assert not (checkout.root / '.venv' / 'old').exists()
