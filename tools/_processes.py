"""Start and end the processes of the tools."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import torch
from mmengine.dist import barrier

from deformable_vit.engine import UserError

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent


def run_tool(tool: str, *args: object) -> None:
    """Run ``tools/<tool>`` in the repository root and show its output.

    Raises:
        UserError: The tool failed.
    """
    print('$ python', Path('tools') / tool, *args, flush=True)
    process = start_tool(tool, *args)
    if process.wait():
        raise UserError(f'tools/{tool} {" ".join(map(str, args))} failed; see its output above')


def start_tool(tool: str, *args: object, log: IO[str] | None = None, threads: int | None = None) -> subprocess.Popen:
    """Start ``tools/<tool>`` in the repository root.

    Args:
        tool: File name of the tool.
        args: Its command line.
        log: File for its output (default: the terminal).
        threads: Threads of its CPU ops (default: as in this process).
    """
    env = os.environ if threads is None else os.environ | {'OMP_NUM_THREADS': str(threads)}
    command = [sys.executable, str(TOOLS / tool), *map(str, args)]
    stderr = None if log is None else subprocess.STDOUT
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=stderr)


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
