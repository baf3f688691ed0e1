"""Basics of the command lines: one-line errors, and the rank that a launcher passes."""

import argparse
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from ..checkpoints import CheckpointError
from ..ops import current_backend

TRACEBACK = 'DEFORMABLE_VIT_TRACEBACK'


class UserError(Exception):
    """An error that the user can fix; the message names the value and the fix, on one line.

    Attributes:
        of_one_process: Whether other processes of a distributed run may not have it.
    """

    of_one_process = False


def first_line(error: BaseException) -> str:
    """Return the type and the message of an exception on one line."""
    text = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    text = text if len(text) <= 400 else text[:400] + ' ...'
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Print a :class:`UserError` as ``PROGRAM: error: MESSAGE`` and exit with status 2, like argparse.

    Ctrl-C is a line too, with status 130.
    """

    @wraps(main)
    def wrapped() -> None:
        try:
            _check_environment()
            main()
        except (UserError, CheckpointError) as error:
            if os.environ.get(TRACEBACK):
                raise
            # Once, not once per process.
            if os.environ.get('RANK', '0') == '0' or getattr(error, 'of_one_process', False):
                print(f'{Path(sys.argv[0]).name}: error: {error}', file=sys.stderr, flush=True)
            sys.exit(2)
        except KeyboardInterrupt:
            if os.environ.get(TRACEBACK):
                raise
            print(f'{Path(sys.argv[0]).name}: interrupted', file=sys.stderr, flush=True)
            sys.exit(130)  # as a shell reports SIGINT

    return wrapped


def _check_environment() -> None:
    try:
        current_backend()
    except ValueError as error:
        raise UserError(str(error)) from error


def set_local_rank(args: argparse.Namespace) -> None:
    """Set ``LOCAL_RANK``, which mmengine reads, from the argument or variable that the launcher sets."""
    os.environ.setdefault('LOCAL_RANK', os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank)))
