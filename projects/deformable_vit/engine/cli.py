"""Basics of the command lines: one-line errors, and the rank that a launcher passes."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn

import torch

from ..errors import UserError, first_line
from ..ops import current_backend

__all__ = [
    'TRACEBACK',
    'Interrupted',
    'UserError',
    'first_line',
    'is_first_process',
    'one_line_errors',
    'set_local_rank',
]

TRACEBACK = 'DEFORMABLE_VIT_TRACEBACK'


class Interrupted(BaseException):
    """The end of a run that a signal asked for, such as Ctrl-C; not an error that code may handle.

    Args:
        number: Of the signal. The exit status is 128 more, as in a shell.
        message: One line: what is saved, and how to go on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + number


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Print a :class:`UserError` as ``PROGRAM: error: MESSAGE`` and exit with status 2, like argparse.

    Ctrl-C and SIGTERM are a line too, with status 130 and 143.
    """

    @wraps(main)
    def wrapped() -> None:
        try:
            _check_environment()
            main()
        except UserError as error:
            if os.environ.get(TRACEBACK):
                raise
            # Once, not once per process.
            if is_first_process() or getattr(error, 'of_one_process', False):
                print(f'{Path(sys.argv[0]).name}: error: {error}', file=sys.stderr, flush=True)
            _exit(2)
        except Interrupted as interrupted:
            if os.environ.get(TRACEBACK):
                raise
            if is_first_process():
                print(f'{Path(sys.argv[0]).name}: {interrupted}', file=sys.stderr, flush=True)
            _exit(interrupted.status)
        except KeyboardInterrupt:
            if os.environ.get(TRACEBACK):
                raise
            print(f'{Path(sys.argv[0]).name}: interrupted', file=sys.stderr, flush=True)
            sys.exit(130)  # as a shell reports SIGINT
        except Exception:
            if not _in_process_group():
                raise
            traceback.print_exc()
            _exit(1)

    return wrapped


def _in_process_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _exit(status: int) -> NoReturn:
    """End the process; one of several without the interpreter's shutdown.

    After an error the other processes may be gone. The shutdown of gloo then waits for them, or aborts; torchrun would
    start the training again half a minute later.
    """
    if _in_process_group():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _check_environment() -> None:
    try:
        current_backend()
    except ValueError as error:
        raise UserError(str(error)) from error


def is_first_process() -> bool:
    """Return whether this is the first process of a distributed run, or the only one, before the processes connect.

    ``SLURM_PROCID`` counts with ``--launcher slurm`` alone: srun also starts independent programs.
    """
    default = os.environ.get('SLURM_PROCID', '0') if {'slurm', '--launcher=slurm'} & set(sys.argv) else '0'
    return os.environ.get('RANK', default) == '0'


def set_local_rank(args: argparse.Namespace) -> None:
    """Set ``LOCAL_RANK``, which mmengine reads, from the argument or variable that the launcher sets."""
    os.environ.setdefault('LOCAL_RANK', os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank)))
