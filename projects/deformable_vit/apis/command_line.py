"""Arguments that the tools share, and errors on one line."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import DictAction

from ..errors import TrainingError, UserError, first_line
from ..ops import current_backend
from .console import quiet_warnings

TRACEBACK = 'DEFORMABLE_VIT_TRACEBACK'
# `dict(...)` or `{'key': ...}` at the beginning of a value or of an element of a list; `{}.pth` is a file name.
_DICT = re.compile(r"""(^|[\[(,])\s*(dict\(|\{\s*(['"]|\w+\s*:))""")


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Print a :class:`UserError` as ``PROGRAM: error: MESSAGE`` and exit with status 2, like argparse.

    ``DEFORMABLE_VIT_TRACEBACK=1`` shows the traceback instead. Deprecations in other packages are not shown.
    """

    @wraps(main)
    def wrapped() -> None:
        quiet_warnings()
        try:
            _check_environment()
            main()
        except (UserError, KeyboardInterrupt) as error:
            if os.environ.get(TRACEBACK):
                raise
            interrupted = isinstance(error, KeyboardInterrupt)
            if is_first_process() or isinstance(error, TrainingError):  # once, not once per process
                line = 'interrupted' if interrupted else f'error: {error}'
                print(f'{Path(sys.argv[0]).name}: {line}', file=sys.stderr, flush=True)
            _exit(130 if interrupted else 2)
        except Exception:
            if not torch.distributed.is_initialized():
                raise
            traceback.print_exc()
            _exit(1)
        if torch.distributed.is_initialized() and torch.distributed.get_backend() == 'gloo':
            torch.distributed.barrier()
            _exit(0)

    return wrapped


def _exit(status: int) -> NoReturn:
    """End the process; one of several without the interpreter's shutdown.

    The threads of gloo may outlive their process group, and the shutdown then aborts in C++ or waits for processes that
    have ended, so that torchrun reports a failure.
    """
    if torch.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _check_environment() -> None:
    try:
        current_backend()
    except ValueError as error:
        raise UserError(str(error)) from error


@contextmanager
def config_errors(path: str, has_started: Callable[[], bool]) -> Iterator[None]:
    """Make an error up to the first batch one line: it is one in the config, such as an argument that a class lacks.

    Args:
        path: File of the config, for the message.
        has_started: Whether the first batch was there; later errors keep their traceback.

    Raises:
        UserError: For an error before that.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if has_started() or os.environ.get(TRACEBACK):
            raise
        raise UserError(f'config {path}: {first_line(error)} ({TRACEBACK}=1 shows the traceback)') from error


def is_first_process() -> bool:
    """Return whether this is the first process of a distributed run, or the only one, before the processes connect.

    ``SLURM_PROCID`` counts with ``--launcher slurm`` alone: srun also starts independent programs.
    """
    default = os.environ.get('SLURM_PROCID', '0') if {'slurm', '--launcher=slurm'} & set(sys.argv) else '0'
    return os.environ.get('RANK', default) == '0'


class ConfigOptions(DictAction):
    """Parse ``--cfg-options`` like mmengine's ``DictAction``, but refuse dicts, which it misreads.

    Raises:
        UserError: An argument is not KEY=VALUE, has unbalanced brackets, or is a dict.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        for option in values:
            key, equals, value = option.partition('=')
            if not key or not equals:
                raise UserError(f'--cfg-options: {option!r} is not KEY=VALUE')
            # mmengine reads brackets where a list begins or is continued; run(1).pth is a file name.
            is_list = value.startswith(('(', '[')) or ',' in value
            if is_list and (value.count('(') != value.count(')') or value.count('[') != value.count(']')):
                raise UserError(f'--cfg-options {key}: unbalanced brackets in {value!r}; write lists as KEY="[a,b]"')
            if _DICT.search(value):
                raise UserError(
                    f'--cfg-options {key}: dicts cannot be written on the command line; set its entries, such as '
                    f"{key}.KEY=VALUE, or write {key} in a config that begins with _base_ = 'CONFIG'"
                )
        super().__call__(parser, namespace, values, option_string)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config, such as model.backbone.with_cp=True param_scheduler.0.end=1000; '
        'lists as KEY="[a,b]" or KEY=a,b without blanks',
    )


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share, with the names that OpenMMLab's tools use."""
    parser.add_argument('--work-dir', help='directory for logs and checkpoints (default: work_dirs/CONFIG)')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes either spelling; torchrun sets the environment variable.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def set_local_rank(args: argparse.Namespace) -> None:
    """Set ``LOCAL_RANK``, which mmengine reads, from the argument or variable that the launcher sets."""
    os.environ.setdefault('LOCAL_RANK', os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', str(args.local_rank)))
