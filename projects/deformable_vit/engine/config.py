"""Reading a config, and checking what can be checked before anything is built."""

import difflib
import inspect
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from ..backbones import PyramidBackbone
from ..backbones.base import translate_state_dict
from ..checkpoints import compare, read_state_dict
from .cli import UserError, first_line

# What mmengine and the hosts read at the top level of a config, besides Runner's own arguments.
_TOP_LEVEL = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'strategy', 'sync_bn', 'tta_model', 'tta_pipeline'),
} - {'self', 'cfg'}


def load_config(path: str, options: dict[str, Any]) -> Config:
    """The config at ``path`` with ``--cfg-options`` merged in.

    Raises:
        UserError: The file is missing or broken, or an option names a key that nobody reads.
    """
    if not Path(path).is_file():
        folder = Path(path).parent
        near = difflib.get_close_matches(Path(path).name, [f.name for f in folder.glob('*.py')], 1, 0.6)
        hint = f'; did you mean {folder / near[0]}?' if near else ''
        raise UserError(f'config {path} {"is a folder" if Path(path).is_dir() else "does not exist"}{hint}')
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a config is a program: anything can go wrong in it
        raise UserError(f'config {path} cannot be read: {first_line(error)}') from error

    for key in options:
        _check_top_level(key.split('.')[0], set(config) | _TOP_LEVEL, '--cfg-options')
    for key in set(config) - _TOP_LEVEL:
        # A config may hold variables of its own, so that only what is nearly a known key is taken for a slip.
        if not key.endswith('_pipeline') and difflib.get_close_matches(key, _TOP_LEVEL, 1, 0.9):
            _check_top_level(key, _TOP_LEVEL, f'config {path}')
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


def _check_top_level(key: str, known: set[str], where: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, 1)
        raise UserError(f'{where}: unknown key {key!r}' + (f'; did you mean {near[0]!r}?' if near else ''))


def set_work_dir(config: Config, path: str, work_dir: str | None) -> None:
    """``--work-dir``, else the config's, else ``work_dirs/`` and the name of the config file."""
    config.work_dir = work_dir or config.get('work_dir') or str(Path('work_dirs') / Path(path).stem)


def keep_previous_run(work_dir: str, timestamp: str) -> str | None:
    """Move the checkpoints of an earlier run aside, so that a new one in the same folder does not overwrite them.

    Returns:
        The folder that they went to, or ``None`` where there are none.
    """
    folder = Path(work_dir)
    checkpoints = sorted(folder.glob('*.pth'))
    if not checkpoints or not is_main_process():
        return None
    previous = folder / f'previous_{timestamp}'
    previous.mkdir()
    for file in (*checkpoints, folder / 'last_checkpoint'):
        if file.exists():
            os.replace(file, previous / file.name)
    return str(previous)


def latest_checkpoint(work_dir: str) -> str | None:
    """The checkpoint that ``--resume auto`` goes on from."""
    if not (Path(work_dir) / 'last_checkpoint').is_file():
        return None
    latest = find_latest_checkpoint(work_dir)
    # The file holds an absolute path; the folder may have been moved since.
    if latest and not Path(latest).exists() and (Path(work_dir) / Path(latest).name).exists():
        return str(Path(work_dir) / Path(latest).name)
    return latest


def check_checkpoint(model: nn.Module, checkpoint: str, *, strict: bool) -> str:
    """Compare a checkpoint with a model before it is loaded.

    Args:
        model: The whole model, not wrapped.
        checkpoint: Path or URL; in this project's names, or a host's with the authors' names behind ``backbone.``.
        strict: Whether every name and shape must agree, or only some.

    Returns:
        What matches and what does not, for the log.

    Raises:
        CheckpointError: The file cannot be read safely.
        UserError: It is of another model.
    """
    state_dict = read_state_dict(checkpoint)
    for name, module in model.named_modules():
        if isinstance(module, PyramidBackbone):
            translate_state_dict(module, state_dict, f'{name}.')
    difference = compare(state_dict, model.state_dict())
    if (strict and difference) or not difference.matched:
        raise UserError(f'checkpoint {checkpoint} is not of the model of this config: {difference}')
    return difference.report()
