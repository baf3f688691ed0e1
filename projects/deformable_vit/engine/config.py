"""Read configs, and check what can be checked before anything is built."""

import difflib
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from torch import nn

from ..checkpoints import check_dtypes, compare, convert_state_dict, read_state_dict, shown
from ..checks import check_options
from .cli import UserError, first_line


def load_config(path: str, options: dict[str, Any]) -> Config:
    """Return the config at ``path`` with ``--cfg-options`` merged in.

    Raises:
        UserError: The file is missing or invalid, or an option has no effect.
    """
    if not Path(path).is_file():
        directory = Path(path).parent
        close = difflib.get_close_matches(Path(path).name, [f.name for f in directory.glob('*.py')], 1, 0.6)
        hint = f'; did you mean {directory / close[0]}?' if close else ''
        raise UserError(f'config {path} {"is a directory" if Path(path).is_dir() else "does not exist"}{hint}')
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a config is a program: it can raise anything
        raise UserError(f'config {path} cannot be read: {first_line(error)}') from error

    check_options(options, config, path)
    try:
        config.merge_from_dict(options)
    except Exception as error:
        raise UserError(f'--cfg-options do not fit {path}: {first_line(error)}') from error

    for key in ('model', 'default_scope'):
        if config.get(key) is None:
            raise UserError(f'config {path} has no {key!r}')
    if config.default_scope not in ('mmdet', 'mmseg', 'mmpretrain'):
        raise UserError(f'config {path}: default_scope {config.default_scope!r} is not mmdet, mmseg or mmpretrain')
    return config


def set_work_dir(config: Config, path: str, work_dir: str | None) -> None:
    """Set ``config.work_dir``: ``--work-dir``, else the config's own, else ``work_dirs/CONFIG``."""
    config.work_dir = work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(path).stem)


def keep_previous_run(work_dir: str, timestamp: str) -> str | None:
    """Move the checkpoints of an earlier run to a subdirectory, so that a new run does not overwrite them.

    Returns:
        The subdirectory, or ``None`` if there are no checkpoints.
    """
    directory = Path(work_dir)
    checkpoints = sorted(directory.glob('*.pth'))
    if not checkpoints or not is_main_process():
        return None
    previous = directory / f'previous_{timestamp}'
    previous.mkdir()
    for file in (*checkpoints, directory / 'last_checkpoint'):
        if file.exists():
            os.replace(file, previous / file.name)
    return str(previous)


def check_checkpoint(model: nn.Module, checkpoint: str, *, strict: bool) -> str:
    """Compare a checkpoint with a model before it is loaded.

    Args:
        model: The whole model, not wrapped.
        checkpoint: Path or URL. The names behind ``backbone.`` may be those of the official implementation.
        strict: Whether all names and shapes must match, or only some.

    Returns:
        A report of what matches, for the log.

    Raises:
        CheckpointError: The file cannot be read safely.
        UserError: It belongs to another model.
    """
    converted, own = convert_state_dict(model, read_state_dict(checkpoint)), model.state_dict()
    check_dtypes(converted, own, checkpoint)
    difference = compare(converted, own)
    if (strict and difference) or not difference.matched:
        raise UserError(f'checkpoint {shown(checkpoint)} does not fit the model of this config: {difference}')
    return difference.report()
