"""tools/dev/setup.sh on a machine of which the tests choose the commands, with a fake Python."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from running import ROOT

# The versions that requirements.txt pins.
PINS = dict(
    line.split()[0].split('==') for line in (ROOT / 'requirements.txt').read_text().splitlines() if '==' in line
)
TORCH, TORCHVISION = PINS['torch'], PINS['torchvision']

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
    [ -z "${HANG_BUILD:-}" ] || sleep 60
    [ -z "${FAIL_BUILD:-}" ] || exit 1
    mkdir -p "$3/out" && : >"$3/out/$MMCV-cp311-none-any.whl" ;;
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
FAKE_TORCH = f"""
import os
__version__ = '{TORCH}'
class version:
    cuda = os.environ.get('TORCH_CUDA') or None
class cuda:
    is_available = lambda: bool(os.environ.get('GPU'))
    device_count = lambda: 1
    get_device_capability = lambda i: (9, 0)
"""
# What setup.sh runs from PATH; a command that is left out is missing on the machine.
COMMANDS = (
    'awk basename bash cat chmod cp dirname env find flock grep head ln mkdir mv nproc rm sed sha256sum sleep tail'
    ' touch'
)


class Checkout:
    """A directory with the set-up of the project and nothing else, on a machine with these commands alone."""

    def __init__(self, root: Path) -> None:
        self.root, self.wheels, self.log, self.bin = root / 'project', root / 'wheels', root / 'log', root / 'bin'
        (self.root / 'tools' / 'dev').mkdir(parents=True)
        files = ('requirements.txt', 'requirements-onedl.txt', 'pyproject.toml')
        for name in (*files, 'tools/dev/setup.sh', 'tools/build_mmcv.py'):
            shutil.copy(ROOT / name, self.root / name)
        self.gpu = root / 'nvidiactl'
        script = self.root / 'tools' / 'dev' / 'setup.sh'
        script.write_text(script.read_text().replace('/dev/nvidiactl', str(self.gpu)).replace('/usr/local/cuda', '/no'))
        self.bin.mkdir()
        for name in COMMANDS.split():
            (self.bin / name).symlink_to(shutil.which(name) or name)
        self.command('g++', 'exit 0')
        python = self.command('python3.11', FAKE_PYTHON)
        modules = root / 'modules'
        modules.mkdir()
        (modules / 'run.py').write_text(RUN)
        (modules / 'torch.py').write_text(FAKE_TORCH)
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
            ['bash', 'tools/dev/setup.sh'], cwd=self.root, env=self.env | env, text=True, start_new_session=True,
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
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    @property
    def steps(self) -> list[str]:
        """Lines that say what was installed and built."""
        return self.log.read_text().splitlines()

    @property
    def wheel(self) -> Path:
        return self.wheels / f'torch{TORCH}-cp311-cpu' / 'mmcv-2.1.0-cp311-none-any.whl'
