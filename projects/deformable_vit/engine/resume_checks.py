"""What training resumes from has to be complete and of the types of this training, before anything is taken from it.

mmengine resumes without the optimizer or the schedulers if the file has none, counts epochs from any number, and takes
a learning rate of any type.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor

from ..checkpoints import CheckpointError, plain, shown

_WEIGHTS = ('state_dict', 'ema_state_dict')
# How torch computes, which may differ between machines.
_SWITCHES = {'foreach', 'fused', 'capturable', 'differentiable'}
# Switches that older versions of torch did not save, and newer ones fill in.
_NEWER = {'maximize', 'amsgrad', 'nesterov', 'decoupled_weight_decay'}
# State of the parameter's shape; others, such as the rows of Adafactor, have shapes of their own.
_FULL_SIZE = {'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'exp_inf', 'momentum_buffer', 'square_avg', 'grad_avg', 'sum'}
# What a scheduler continues from.
_PROGRESS = ('base_values', 'last_step', '_global_step')


class CheckpointContentHook(Hook):
    """Save tensors and plain numbers only, and check a checkpoint before training resumes from it."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint.update({key: plain(value) for key, value in checkpoint.items() if key not in _WEIGHTS})
        if 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = _without_functions(checkpoint['param_schedulers'])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner.cfg.get('resume'):
            check_resume(runner, checkpoint)


def _without_functions(state: Any) -> Any:
    """Drop the functions of schedulers, which every scheduler has already when it resumes (OneCycleLR)."""
    if isinstance(state, dict):
        return {key: _without_functions(value) for key, value in state.items() if not callable(value)}
    return [_without_functions(value) for value in state] if isinstance(state, list) else state


def check_resume(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Compare a checkpoint with the training that resumes from it.

    Raises:
        CheckpointError: It lacks something, or something has another type, number or range.
    """
    problem = next(_problems(runner, checkpoint), None)
    if problem:
        file = shown(str(runner.cfg.get('load_from')))
        raise CheckpointError(
            f'checkpoint {file} cannot be resumed: {problem}; resume from an epoch_N.pth or iter_N.pth of this config, '
            'or start from the weights alone: --cfg-options load_from=FILE'
        )


def _problems(runner: Any, checkpoint: Mapping[str, Any]) -> Iterator[str]:
    meta = checkpoint.get('meta')
    for key in ('meta', 'message_hub', 'optimizer'):
        if not isinstance(checkpoint.get(key), dict):
            yield f'it has no {key}'
    for key in ('epoch', 'iter'):
        if key not in (meta or {}):
            yield f'its meta has no {key}'
    assert isinstance(meta, dict)
    loop = runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        if meta['iter'] > loop.max_iters:
            yield f'it is from iteration {meta["iter"]}, and the config trains {loop.max_iters} iterations'
    elif meta['epoch'] > loop.max_epochs:
        yield f'it is from epoch {meta["epoch"]}, and the config trains {loop.max_epochs} epochs'
    owner = getattr(runner, 'strategy', runner)  # FlexibleRunner's strategy holds them
    optimizer = getattr(owner.optim_wrapper, 'optimizer', None)
    if optimizer is not None:  # OptimWrapperDict has several
        yield from _optimizer_problems(checkpoint['optimizer'], optimizer.param_groups)
    schedulers = getattr(owner, 'param_schedulers', None)
    if isinstance(schedulers, list):
        yield from _scheduler_problems(checkpoint.get('param_schedulers'), schedulers)


def _optimizer_problems(found: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    found_groups, state = found.get('param_groups'), found.get('state')
    if not isinstance(found_groups, list) or not isinstance(state, dict):
        yield 'its optimizer has no param_groups and state'
        return
    if len(found_groups) != len(groups):
        yield f'its optimizer has {len(found_groups)} param_groups, and that of the config {len(groups)}'
    for index, (group, own) in enumerate(zip(found_groups, groups, strict=False)):
        where = f'optimizer.param_groups[{index}]'
        if not isinstance(group, dict) or not isinstance(group.get('params'), list):
            yield f'{where} has no params'
            return
        if len(group['params']) != len(own['params']):
            yield f'{where} has {len(group["params"])} params, and that of the config {len(own["params"])}'
        for key, value in own.items():
            if key == 'params' or (key in _NEWER | _SWITCHES and key not in group):
                continue
            if key not in group:
                yield f'{where} has no {key}'
                return
            if key in _SWITCHES:
                if not isinstance(group[key], (bool, type(None))):
                    yield f'{where}.{key} is {shown(repr(group[key]))}, not True, False or None'
            else:
                yield from _unlike(group[key], value, f'{where}.{key}')
    params = [param for group in groups for param in group['params']]
    for number, values in state.items():
        if type(number) is not int or not 0 <= number < len(params) or not isinstance(values, dict):
            yield f'optimizer.state has the entry {shown(repr(number))}, and there are {len(params)} parameters'
            return
        for name, value in values.items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else None
            if name in _FULL_SIZE and shape != params[number].shape and value is not None:
                found_shape = f'has shape {shape}' if shape is not None else f'is {shown(repr(value))}'
                yield (
                    f'optimizer.state[{number}].{shown(str(name))} {found_shape}, and the parameter has shape '
                    f'{tuple(params[number].shape)}'
                )
            elif not isinstance(value, Tensor):
                yield from _unlike(value, 0 if name == 'step' else value, f'optimizer.state[{number}].{name}')


def _scheduler_problems(found: Any, schedulers: Sequence[Any]) -> Iterator[str]:
    if not isinstance(found, list):
        yield 'it has no param_schedulers'
        return
    if len(found) != len(schedulers):
        yield f'it has {len(found)} param_schedulers, and the config {len(schedulers)}'
    for index, (state, scheduler) in enumerate(zip(found, schedulers, strict=False)):
        where, own = f'param_schedulers[{index}]', scheduler.state_dict()
        if not isinstance(state, dict):
            yield f'{where} is {shown(repr(state))}'
            return
        for key in _PROGRESS:
            if key in own and key not in state:
                yield f'{where} has no {key}'
        for key, value in state.items():
            if key in own:
                yield from _unlike(value, own[key], f'{where}.{key}')
            elif hasattr(type(scheduler), str(key)):
                yield f'{where} replaces {shown(str(key))} of {type(scheduler).__name__}'


def _unlike(found: Any, own: Any, where: str) -> Iterator[str]:
    """Yield how a value is of another kind than this training's own; numbers may differ."""
    if isinstance(own, bool):
        expected = None if isinstance(found, bool) else 'True or False'
    elif isinstance(own, (int, float)):
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        is_number = is_number or (isinstance(found, Tensor) and found.numel() == 1)
        # D-Adaptation and Prodigy begin with an infinite growth rate.
        expected = None if is_number and (math.isfinite(found) or found == own) else 'a finite number'
    elif isinstance(own, str):
        expected = None if isinstance(found, str) else 'text'
    elif isinstance(own, (list, tuple)):
        if isinstance(found, (list, tuple)) and len(found) == len(own):
            for index, (a, b) in enumerate(zip(found, own, strict=True)):
                yield from _unlike(a, b, f'{where}[{index}]')
            return
        expected = f'a list of {len(own)}'
    elif isinstance(own, dict):
        expected = None if isinstance(found, dict) else 'a dict'
    else:
        return
    if expected:
        yield f'{where} is {shown(repr(found))}, not {expected}'
