"""Command-line options that the tools share."""

import argparse
from typing import Any

from mmengine.config import DictAction

from ..checks.options import DICT
from .cli import UserError


class ConfigOptions(DictAction):
    """Parse ``--cfg-options`` like mmengine's ``DictAction``, and leave dicts, which it misreads, as text.

    Raises:
        UserError: An argument is not KEY=VALUE, or its brackets are unbalanced.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for option in values:
            key, equals, value = option.partition('=')
            if not key or not equals:
                raise UserError(f'--cfg-options: {option!r} is not KEY=VALUE')
            # mmengine reads brackets where a list begins or is continued; run(1).pth is a file name.
            is_list = value.startswith(('(', '[')) or ',' in value
            if is_list and (value.count('(') != value.count(')') or value.count('[') != value.count(']')):
                raise UserError(f'--cfg-options {key}: unbalanced brackets in {value!r}; write lists as KEY="[a,b]"')
            options[key] = value if _is_dict(value) else self._parse_iterable(value)
        setattr(namespace, self.dest, options)


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


def _is_dict(value: str) -> bool:
    """Return whether the text of an option is a dict or a list with dicts."""
    return bool(DICT.search(value))
