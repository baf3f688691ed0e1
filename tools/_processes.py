"""Start and end the processes of the tools."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import torch
from mmengine.dist import barrier

from deformable_vit.engine import PROGRESS, UserError

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent


def run_tool(tool: str, *args: object, log: Path) -> None:
    """Run ``tools/<tool>`` in the repository root, with its output in a file.

    Raises:
        UserError: The tool failed; the last lines of its output are on standard error.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w') as opened:
        status = start_tool(tool, *args, log=opened).wait()
    if status:
        print(f'the end of {log}:\n{last_lines(log)}', file=sys.stderr)
        raise UserError(f'tools/{tool} failed; see {log}')


def start_tool(
    tool: str,
    *args: object,
    log: IO[str] | None = None,
    threads: int | None = None,
    progress: Path | None = None,
) -> subprocess.Popen:
    """Start ``tools/<tool>`` in the repository root.

    Args:
        tool: File name of the tool.
        args: Its command line.
        log: File for its output (default: the terminal).
        threads: Threads of its CPU ops (default: as in this process).
        progress: File that train.py and test.py keep up to date, for ``read_progress``.
    """
    env = dict(os.environ)
    if threads is not None:
        env['OMP_NUM_THREADS'] = str(threads)
    if progress is not None:
        env[PROGRESS] = str(progress)
    command = [sys.executable, str(TOOLS / tool), *map(str, args)]
    stderr = None if log is None else subprocess.STDOUT
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=stderr)


def last_lines(log: Path, count: int = 15) -> str:
    """Return the last lines of a log as a terminal would show them, indented and without blank lines."""
    # Of a progress bar only its last state, and of long lines only the beginning.
    lines = [line.rpartition('\r')[2][:300] for line in log.read_bytes().decode(errors='replace').split('\n')]
    return '\n'.join([f'  {line}' for line in lines if line.strip()][-count:])


def usable_cores() -> set[int]:
    """Return the indices of the CPU cores that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS has no CPU affinity


def exit_distributed() -> None:
    """End a process that used gloo, without the interpreter's shutdown; return if it did not.

    A gloo thread may outlive its process group, even a destroyed one, when the machine is busy. The interpreter's
    shutdown then aborts in C++ ("terminate called without an active exception"), and torchrun reports a failure
    although all work is done. Call this last.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_backend() != 'gloo':
        return
    barrier()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
