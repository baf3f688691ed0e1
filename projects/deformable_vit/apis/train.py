"""Train the model of a config with mmengine's runner."""

import errno
import logging
import os
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, FlexibleRunner, Runner
from torch import nn

from .._nested import type_name
from ..checks import Problem, check, check_model, warmup_warning
from ..engine import StopHook, resumable_checkpoints
from ..engine.hooks.checkpoints import bare_model
from ..engine.hooks.samples import SampleError
from ..errors import CheckpointError, TrainingError, UserError
from .command_line import config_errors, is_first_process
from .console import quiet_log

_HOOKS = (
    'WorkDirHook',
    'CheckpointMatchHook',
    'SeedHook',
    'SampleErrorHook',
    'FiniteLossHook',
    'StopHook',
    'DurationHook',
)
_LOOPS = ('EpochBasedTrainLoop', 'IterBasedTrainLoop')
_PREFIX = 'deformable_vit.engine.'
_GONE = (errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ESTALE, errno.EIO)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _StartHook(Hook):
    """Notice the first iteration, which is the first to use the losses."""

    has_started = False

    def before_train(self, runner: Runner) -> None:
        loader = runner.train_dataloader
        batches: Any = getattr(loader, 'batch_sampler', None)
        # An epoch without a batch trains nothing, and mmengine's loop of iterations waits for one for ever.
        if isinstance(getattr(batches, 'sampler', None), DefaultSampler) and not len(batches):
            raise UserError(
                f'train_dataloader gives no batch: {len(loader.dataset)} samples, batch_size={batches.batch_size} and '
                'drop_last=True; set drop_last=False, or a smaller batch_size'
            )
        if warning := warmup_warning(runner):
            print_log(warning, 'current', logging.WARNING)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        # A sampler that the checks of the config do not know. Those of aspect ratios may have a few batches more.
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop) and batch_idx > 2 * len(loop.dataloader):
            raise TrainingError(
                f'an epoch of {len(loop.dataloader)} batches has reached batch {batch_idx}: train_dataloader.sampler '
                "never ends; set its type='DefaultSampler', or train iterations (IterBasedTrainLoop)"
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self.has_started = True


def train(config: Config, path: str) -> None:
    """Train from the beginning, from the weights of ``load_from``, or with ``resume`` from the checkpoint there.

    ``resume`` without ``load_from`` takes the newest checkpoint of the work directory that is whole.

    Args:
        config: Complete, with a work directory.
        path: Its file, for messages.

    Raises:
        UserError: Something in the config does not fit, a sample cannot be read, a loss is not finite, or the work
            directory cannot be written any more.
        SystemExit: A signal has ended the training; see :class:`.StopHook`.
    """
    try:
        Path(config.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'work directory {config.work_dir}: {error.strerror}; choose another --work-dir') from error
    if not config.get('resume') or config.get('load_from'):
        _train(config, path)
        return
    checkpoints = resumable_checkpoints(config.work_dir)
    if not checkpoints and Path(config.work_dir, 'last_checkpoint').exists():
        raise UserError(
            f'--resume: no whole checkpoint in {config.work_dir}; pass --resume FILE, or train without --resume'
        )
    if not checkpoints:
        print_log(f'--resume: no checkpoint in {config.work_dir}; starting from the beginning')
        config.resume = False
        _train(config, path)
    for number, config.load_from in enumerate(map(str, checkpoints), 1):
        try:
            _train(config, path)
            return
        except CheckpointError as error:  # damaged
            if number == len(checkpoints):
                raise
            print_log(f'--resume: {error}', 'current', logging.WARNING)


def _train(config: Config, path: str) -> None:
    start = _StartHook()
    with config_errors(path, lambda: start.has_started):
        try:
            runner: Any = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
            quiet_log()
            runner.register_hook(start, priority='VERY_LOW')
            if isinstance(runner, FlexibleRunner):  # it would build the model later, and then keeps this one
                runner.model = runner.strategy.build_model(runner.model)
            if isinstance(runner.model, nn.Module):
                check_model(bare_model(runner.model), config.default_scope)
            runner.train()
        except SampleError as error:
            raise TrainingError(_bad_sample(runner, error)) from error
        except OSError as error:
            if line := _failed_write(error, config.work_dir):
                raise line from error
            raise


def check_before_training(config: Config, path: str) -> None:
    """Read the annotation files of a training and some of its images, in the main process only.

    Raises:
        UserError: Something would stop or spoil the training.
    """
    if not is_first_process():
        return
    report = check(config, quick=True, loaders=('train_dataloader', 'val_dataloader'))
    advice = f'python tools/check_data.py {path} lists all problems'
    if errors := report.errors:
        more = f', and {len(errors) - 1} more' if len(errors) > 1 else ''
        raise UserError(f'{errors[0].loader}: {errors[0]}{more}; {advice}, --no-check trains anyway')
    if report:
        kinds: dict[tuple[str, str], list[Problem]] = {}
        for problem in report:
            kinds.setdefault((problem.loader, problem.kind), []).append(problem)
        lines = [
            f'  {loader}: {found[0]}' + (f' and {len(found) - 1} more' if len(found) > 1 else '')
            for (loader, _), found in kinds.items()
        ]
        print_log('\n'.join([f'{len(report)} warnings; {advice}', *lines]), level=logging.WARNING)


def make_reliable(config: Config, grace: float | None = None, on_bad_sample: str | None = None) -> None:
    """Add the hooks, the loop and the batch sampler of :mod:`..engine` to a config that does not name them.

    Args:
        config: Changed in place; it stands so in the work directory.
        grace: Of :class:`.StopHook`, else its own.
        on_bad_sample: ``on_error`` of :class:`.SampleErrorHook`, else its own.
    """
    hooks = [*(config.get('custom_hooks') or [])]
    named = {type_name(hook.get('type')): hook for hook in hooks if isinstance(hook, dict)}
    for name in _HOOKS:
        if name not in named:
            named[name] = dict(type=_PREFIX + name)
            hooks.append(named[name])
    if grace is not None:
        named['StopHook']['grace'] = grace
    if on_bad_sample is not None:
        named['SampleErrorHook']['on_error'] = on_bad_sample
    config.custom_hooks = hooks
    loop, loader = config.get('train_cfg'), config.get('train_dataloader')
    if not isinstance(loop, dict) or not isinstance(loader, dict) or not isinstance(loader.get('sampler'), dict):
        return
    kind = type_name(loop.get('type')) or _LOOPS[0 if loop.get('by_epoch') else 1]
    sampler = loader.get('batch_sampler')
    if kind not in _LOOPS or not isinstance(sampler, (dict, type(None))) or 'batch_size' not in loader:
        return
    loop.pop('by_epoch', None)
    loop['type'] = f'{_PREFIX}Resumable{kind}'
    if type_name((sampler or {}).get('type')) != 'SeededBatchSampler':
        loader['batch_sampler'] = dict(
            type=f'{_PREFIX}SeededBatchSampler', drop_last=loader.pop('drop_last', False), batch_sampler=sampler
        )


def _bad_sample(runner: Any, error: SampleError) -> str:
    """Save a checkpoint of the iterations before a bad sample, and return the line about it."""
    # An error of a worker process has its traceback in the message.
    line = (re.findall(r'SampleError: (.*)', str(error)) or [' '.join(str(error).split())])[-1]
    for hook in runner.hooks:
        if isinstance(hook, StopHook) and runner.iter and is_main_process():  # others do not save
            hook.save(runner, runner.iter)
            line += f'; a checkpoint has the {runner.iter} iterations before, --resume continues from there'
    return line


def _failed_write(error: OSError, work_dir: str) -> UserError | None:
    """Return the line for an error of the operating system while a training writes, ``None`` for all others."""
    inside = error.filename and Path(str(error.filename)).absolute().is_relative_to(Path(work_dir).absolute())
    if error.errno not in _FULL and not (error.errno in _GONE and inside):
        return None
    gone = '' if Path(work_dir).is_dir() else ' (the directory is gone)'
    return TrainingError(
        f'work directory {work_dir}: {os.strerror(error.errno)}{gone}; earlier checkpoints are whole: make it writable '
        'again and go on with --resume'
    )
