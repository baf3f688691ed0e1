"""tools/_processes.py: how the tools start each other and how they end."""

import re
import subprocess
import sys
from pathlib import Path

import _processes
import pytest
from _processes import exit_distributed, last_lines, run_tool, start_tool
from running import ENVIRONMENT, ROOT

from deformable_vit.engine import UserError


def test_run_tool_shows_the_end_of_the_log_of_a_tool_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(_processes, 'TOOLS', tmp_path)
    (tmp_path / 'tool.py').write_text('import sys\nprint("reason", len(sys.argv))\nsys.exit(len(sys.argv) - 2)')
    log = tmp_path / 'new' / 'log.txt'
    run_tool('tool.py', 'one', log=log)
    assert log.read_text() == 'reason 2\n'
    with pytest.raises(UserError, match=rf'^tools/tool\.py failed; see {re.escape(str(log))}$'):
        run_tool('tool.py', 'one', 2, log=log)
    assert capsys.readouterr() == ('', f'the end of {log}:\n  reason 3\n')


def test_last_lines_are_those_that_a_terminal_shows(tmp_path: Path) -> None:
    log = tmp_path / 'log.txt'
    log.write_text('first\n\n 10 %\r 20 %\nTraceback\n  File "a.py"\n\n' + 400 * 'x' + '\n')
    assert last_lines(log, 3) == f'  Traceback\n    File "a.py"\n  {300 * "x"}'
    assert last_lines(log).splitlines()[:2] == ['  first', '   20 %']


def test_start_tool_sets_threads_and_writes_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes, 'TOOLS', tmp_path)
    (tmp_path / 'tool.py').write_text(
        'import os, sys\nprint(os.environ["OMP_NUM_THREADS"], os.environ["DEFORMABLE_VIT_PROGRESS"], flush=True)\n'
        'print(os.getcwd(), file=sys.stderr)'
    )
    with (tmp_path / 'log.txt').open('w') as log:
        assert start_tool('tool.py', log=log, threads=3, progress=Path('/p.json')).wait() == 0
    assert (tmp_path / 'log.txt').read_text().split() == ['3', '/p.json', str(ROOT)]


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
