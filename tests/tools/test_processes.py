"""tools/_processes.py: how the tools start each other and how they end."""

import subprocess
import sys
from pathlib import Path

import _processes
import pytest
from _processes import exit_distributed, run_tool, start_tool
from running import ENVIRONMENT, ROOT

from deformable_vit.engine import UserError


def test_run_tool_names_the_command_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes, 'TOOLS', tmp_path)
    (tmp_path / 'tool.py').write_text('import sys\nsys.exit(len(sys.argv) - 2)')
    run_tool('tool.py', 'one')
    with pytest.raises(UserError, match=r'^tools/tool\.py one 2 failed; see its output above$'):
        run_tool('tool.py', 'one', 2)


def test_start_tool_sets_threads_and_writes_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes, 'TOOLS', tmp_path)
    (tmp_path / 'tool.py').write_text(
        'import os, sys\nprint(os.environ["OMP_NUM_THREADS"], flush=True)\nprint(os.getcwd(), file=sys.stderr)'
    )
    with (tmp_path / 'log.txt').open('w') as log:
        assert start_tool('tool.py', log=log, threads=3).wait() == 0
    assert (tmp_path / 'log.txt').read_text().split() == ['3', str(ROOT)]


def test_exit_distributed_returns_without_a_process_group() -> None:
    exit_distributed()


GLOO = """
import atexit, torch
from _processes import exit_distributed
torch.distributed.init_process_group('gloo', init_method='file://{file}', rank=0, world_size=1)
atexit.register(print, 'shutdown of the interpreter')
print('buffered output')
exit_distributed()
print('not reached')
"""


@pytest.mark.slow
def test_exit_distributed_skips_the_shutdown_after_gloo(tmp_path: Path) -> None:
    code = GLOO.format(file=tmp_path / 'store')
    env = ENVIRONMENT | {'PYTHONPATH': str(ROOT / 'tools')}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stdout) == (0, 'buffered output\n'), done.stderr
