"""Running the tools one after the other, for what trains more than one model."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from deformable_vit.engine import UserError

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent


def run_tool(tool: str, *args: object) -> None:
    """Run ``tools/<tool>`` in the project's root, its messages on the screen.

    Raises:
        UserError: It failed.
    """
    print('$ python', Path('tools') / tool, *args, flush=True)
    process = start_tool(tool, *args)
    if process.wait():
        raise UserError(f'tools/{tool} {" ".join(map(str, args))} failed; its messages are above')


def start_tool(tool: str, *args: object, log: IO[str] | None = None, threads: int | None = None) -> subprocess.Popen:
    """Start ``tools/<tool>`` in the project's root, its messages on the screen or in ``log``, on so many threads."""
    env = os.environ if threads is None else os.environ | {'OMP_NUM_THREADS': str(threads)}
    command = [sys.executable, str(TOOLS / tool), *map(str, args)]
    stderr = None if log is None else subprocess.STDOUT
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=stderr)
