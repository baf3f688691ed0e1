"""Epochs and iterations of a training that do not fit each other."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from .._nested import type_name, walk
from .datasets import LOADERS
from .problem import Problem
from .types import bases

# Samplers whose indices never end, and so never end an epoch.
_ENDLESS = {'InfiniteSampler', 'MultiSourceSampler'}


def check_schedule(config: Config, loaders: Sequence[str] = LOADERS) -> Iterator[Problem]:
    """Yield samplers of dataloaders that do not end, and what does not fit the loop of a training."""
    scope = config.get('default_scope') or 'mmengine'
    for loader in loaders:
        if loader != 'train_dataloader' and (endless := _endless_sampler(config.get(loader), scope)):
            kind = f'{loader}.sampler is {endless}, which never ends: neither would the evaluation'
            yield Problem('error', 'config', kind, detail="set its type='DefaultSampler', shuffle=False")
    loop, data = config.get('train_cfg'), config.get('train_dataloader')
    if 'train_dataloader' not in loaders or not isinstance(loop, dict) or not isinstance(data, dict):
        return
    if 'type' not in loop and 'by_epoch' not in loop:  # which mmengine refuses
        return
    kind = loop.get('type') or ('EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop')
    found = bases(kind, scope)
    name = type_name(kind)
    endless = _endless_sampler(data, scope)
    for loop_kind, foreign in (('EpochBasedTrainLoop', 'max_iters'), ('IterBasedTrainLoop', 'max_epochs')):
        if loop_kind in found and foreign in loop:
            problem = f'train_cfg is of {name}, and has {foreign}'
            yield Problem(
                'error', 'config', problem, detail='replace that of the base: train_cfg=dict(_delete_=True, ...)'
            )
    if 'EpochBasedTrainLoop' in found and endless:
        kind = f'train_cfg trains epochs ({name}), and an epoch of {endless} never ends: nothing is saved or evaluated'
        fix = (
            "set train_dataloader.sampler.type='DefaultSampler', or train iterations: "
            "train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=..., val_interval=...)"
        )
        yield Problem('error', 'config', kind, detail=fix)
    elif 'IterBasedTrainLoop' in found:
        yield from _epochs_in_iterations(name, config, scope)


def _endless_sampler(loader: Any, scope: str) -> str | None:
    """Return the name of a dataloader's sampler if it is one without an end."""
    sampler = loader.get('sampler') if isinstance(loader, dict) else None
    kind = sampler.get('type') if isinstance(sampler, dict) else None
    return type_name(kind) if bases(kind, scope) & _ENDLESS else None


def _epochs_in_iterations(loop: str, config: Config, scope: str) -> Iterator[Problem]:
    """Yield what waits for the end of an epoch, which comes with the end of the training."""
    for key, settings in walk(config.get('param_scheduler'), 'param_scheduler'):
        if not isinstance(settings, dict) or 'type' not in settings or not settings.get('by_epoch', True):
            continue
        if not settings.get('convert_to_iter_based') and not _needs_no_steps(settings, scope):
            kind = f'{key} counts epochs and {loop} has none: it would never change the learning rate'
            fix = 'set its by_epoch=False, and begin, end or milestones in iterations'
            yield Problem('warning', 'config', kind, detail=fix)
    saving = (config.get('default_hooks') or {}).get('checkpoint')
    if isinstance(saving, dict) and saving.get('by_epoch', True) and saving.get('interval', -1) > 0:
        kind = f'default_hooks.checkpoint counts epochs and {loop} has none: it would save at the end only'
        yield Problem('warning', 'config', kind, detail='set its by_epoch=False and interval in iterations')


def _needs_no_steps(settings: dict[str, Any], scope: str) -> bool:
    """Return whether a scheduler would leave the learning rate as it is, or is stepped by evaluations."""
    found = bases(settings.get('type'), scope)
    return 'ReduceOnPlateauParamScheduler' in found or (
        settings.get('factor') == 1 and 'ConstantParamScheduler' in found
    )
