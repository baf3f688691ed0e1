"""Arguments that the tools share, and errors of one line."""

import argparse
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from mmengine.config import DictAction

from ..checkpoints import CheckpointError
from ..ops import current_path

TRACEBACK = 'DEFORMABLE_VIT_TRACEBACK'


class UserError(Exception):
    """Something that the user can mend; the message names the value and the fix, on one line."""


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    text = text if len(text) <= 400 else text[:400] + ' ...'
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Print a :class:`UserError` as ``PROGRAM: error: MESSAGE`` and exit with 2, as argparse does."""

    @wraps(main)
    def wrapped() -> None:
        try:
            _check_environment()
            main()
        except (UserError, CheckpointError) as error:
            if os.environ.get(TRACEBACK):
                raise
            if os.environ.get('RANK', '0') == '0':  # once, not once a process
                print(f'{Path(sys.argv[0]).name}: error: {error}', file=sys.stderr, flush=True)
            sys.exit(2)

    return wrapped


def _check_environment() -> None:
    try:
        current_path()
    except ValueError as error:
        raise UserError(str(error)) from error


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what training and testing have in common, under the hosts' names."""
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: the config, or work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config, such as model.backbone.with_cp=True param_scheduler.0.end=1000; '
        'lists as KEY="[a,b]" or KEY=a,b without blanks',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes one or the other; torchrun sets the environment variable.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def set_local_rank(args: argparse.Namespace) -> None:
    """Hand the rank that a launcher passed in its own way on to mmengine, which reads the environment."""
    os.environ.setdefault('LOCAL_RANK', os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank)))
