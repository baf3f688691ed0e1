"""tools/setup.sh with a stand-in for Python: what it does in which order, and that a killed set-up is picked up."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from running import ROOT

# Answers like python, pip and venv as far as setup.sh asks, and writes down what it was asked to install.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip --version") ;;
  "-m pip install "*)
    echo "install ${@:4}" >>"$LOG"
    if [ -n "${HANG:-}" ]; then sleep 60; fi ;;
  "-m pip download "*) mkdir -p mmcv-2.1.0 && : >mmcv-2.1.0/setup.py
    while [ "$1" != -d ]; do shift; done
    mkdir -p "$2" && tar -czf "$2/mmcv-2.1.0.tar.gz" mmcv-2.1.0 && rm -r mmcv-2.1.0 ;;
  "-m pip wheel "*)
    echo "build" >>"$LOG"
    [ -z "${HANG_BUILD:-}" ] || exec -a "$0 $*" sleep 60
    while [ "$1" != -w ]; do shift; done
    mkdir -p "$2" && : >"$2/mmcv-2.1.0-cp311-none-any.whl" ;;
  "-m zipfile "*) echo "${WHEEL_HOLDS:-mmcv/_ext.cpython-311-x86_64-linux-gnu.so}" && seq 50000 ;;
  "-c import sys, torch"*) echo torch2.12.1-cp311 ;;
  "-c import "*) ;;
  "--version") echo "Python 3.11.0" ;;
  "-") cat >/dev/null ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


class Place:
    """A folder with the project's set-up and nothing else."""

    def __init__(self, root: Path) -> None:
        self.root, self.wheels, self.log = root / 'project', root / 'wheels', root / 'log'
        (self.root / 'tools').mkdir(parents=True)
        for name in ('requirements.txt', 'pyproject.toml', 'tools/setup.sh'):
            shutil.copy(ROOT / name, self.root / name)
        stand_in = root / 'python3.11'
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
        self.env = os.environ | dict(
            PYTHON=str(stand_in), LOG=str(self.log), DEFORMABLE_VIT_WHEELS=str(self.wheels), DEFORMABLE_VIT_CUDA='0'
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
        # Everything that the set-up started, as when a machine goes down; the build is in a session of its own.
        for folder in Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):  # it may end while we look
                if str(self.wheels).encode() in (folder / 'cmdline').read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    @property
    def wheel(self) -> Path:
        return self.wheels / 'torch2.12.1-cp311-cpu' / 'mmcv-2.1.0-cp311-none-any.whl'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_everything_once_and_then_nothing(place: Place) -> None:
    out = place.run()
    assert 'minutes' in out  # long steps say how long
    steps = place.log.read_text().splitlines()
    assert 'torch==2.12.1' in steps[0]
    assert steps[1] == 'build'
    assert str(place.wheel) in steps[2]
    assert '.[dev]' in steps[3]
    assert place.run() == ''
    assert place.log.read_text() == ''
    # Changed requirements are installed, with the wheel that is there.
    with (place.root / 'requirements.txt').open('a') as file:
        file.write('tabulate\n')
    place.run()
    assert 'build' not in place.log.read_text().splitlines()


def test_killed_while_it_installs(place: Place) -> None:
    place.kill_when('install', HANG='1')
    assert (place.root / '.venv' / '.changing').exists()
    (place.root / '.venv' / 'half').touch()
    out = place.run()
    assert 'making .venv anew' in out
    assert not (place.root / '.venv' / 'half').exists()
    assert (place.root / '.venv' / '.ready').exists()


def test_killed_while_it_builds(place: Place) -> None:
    place.kill_when('build', HANG_BUILD='1')
    assert not place.wheel.exists()
    # What is compiled so far is kept, and the next call goes on in the same folder.
    build = place.wheel.parent / 'build' / 'mmcv-2.1.0'
    (build / 'object.o').touch()
    place.run()
    assert place.wheel.exists()
    assert not build.exists()


def test_a_wheel_without_ops_is_refused(place: Place) -> None:
    out = place.run(code=1, WHEEL_HOLDS='mmcv/version.py')
    assert 'the mmcv wheel has no compiled ops' in out
    assert not place.wheel.exists()


def test_no_python(place: Place) -> None:
    place.env['PATH'] = '/usr/bin:/bin'
    out = place.run(code=1, PYTHON='no-such-python')
    assert 'no usable Python 3.11 among: no-such-python' in out
    assert 'apt-get install' in out
