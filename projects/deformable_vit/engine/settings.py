"""Settings of a config that mmengine accepts at first and fails on, or ignores, hours later."""

import difflib
import importlib
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from .cli import UserError
from .options import KNOWN_KEYS

_SAVED_WITH = set(inspect.signature(Runner.save_checkpoint).parameters) - {'self', 'out_dir', 'filename', 'by_epoch'}
_CHECKPOINT_KEYS = {
    *(set(inspect.signature(CheckpointHook.__init__).parameters) - {'self', 'kwargs'}),
    *(_SAVED_WITH - {'save_optimizer', 'save_param_scheduler', 'meta'}),
    *('type', 'priority'),
}
# Of mmengine, and the layer decay of mmdet, mmseg and mmpretrain.
_CONSTRUCTORS = (
    *(None, 'DefaultOptimWrapperConstructor', 'LayerDecayOptimizerConstructor'),
    *('LearningRateDecayOptimizerConstructor', 'LearningRateDecayOptimWrapperConstructor'),
    'ForceDefaultOptimWrapperConstructor',
)
# mmengine registers optimizers whose names begin so if a package is installed.
_OPTIMIZER_PACKAGES = {'DAdapt': 'dadaptation', 'Lion': 'lion-pytorch', 'bnb_': 'bitsandbytes'}
# Metrics that save_best may name, of the evaluators whose names are fixed.
_COCO = [f'mAP{suffix}' for suffix in ('', '_50', '_75', '_s', '_m', '_l')] + ['AR@100', 'AR@300', 'AR@1000']
_IOU = ('aAcc', 'mIoU', 'mAcc', 'mDice', 'mFscore', 'mPrecision', 'mRecall')


def check_settings(config: Config) -> None:
    """Check the settings of a training.

    Raises:
        UserError: A setting would fail later, or nobody reads it.
    """
    for key, known in KNOWN_KEYS.items():
        # Other constructors of the optimizer have keys of their own.
        if not key.startswith('optim_wrapper') or _at(config, 'optim_wrapper.constructor') in _CONSTRUCTORS:
            _check_keys(key, _at(config, key) or {}, known)
    for name, entry in (_at(config, 'optim_wrapper.paramwise_cfg.custom_keys') or {}).items():
        if not isinstance(entry, dict):
            raise UserError(f'optim_wrapper.paramwise_cfg.custom_keys.{name} must be a dict, such as lr_mult=0.1')
    _check_optimizer(config)
    _check_train_cfg(config)
    _check_loaders(config)
    _check_schedulers(config)
    for key, hook in _hooks(config):
        kind = hook.get('type')
        if kind == 'CheckpointHook' or (kind is None and key == 'default_hooks.checkpoint'):
            _check_checkpoint(key, hook, config)
        # -1 switches a hook of mmengine off; 0 does so by accident.
        elif hook.get('interval', -1) != -1:
            _check_int(f'{key}.interval', hook['interval'], 1)


def _at(node: Any, key: str) -> Any:
    for part in key.split('.'):
        node = node.get(part) if isinstance(node, (Config, dict)) else None
    return node


def _check_keys(where: str, settings: Any, known: Iterable[str]) -> None:
    if not isinstance(settings, dict):
        raise UserError(f'{where} must be a dict, got {settings!r}')
    for key in settings:
        if key not in known and key != '_scope_':  # mmengine's own
            close = difflib.get_close_matches(key, known, 1)
            hint = f'; did you mean {close[0]!r}?' if close else f'; there are {", ".join(sorted(known))}'
            raise UserError(f'{where}: nothing reads the key {key!r}{hint}')


def _check_int(key: str, value: Any, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise UserError(f'{key} must be a whole number of at least {lowest}, got {value!r}')


def _check_optimizer(config: Config) -> None:
    name = _at(config, 'optim_wrapper.optimizer.type')
    known = importlib.import_module(f'{config.default_scope}.registry').OPTIMIZERS
    if isinstance(name, str) and known.get(name) is None:  # mmengine says: None is not a callable object
        close = difflib.get_close_matches(name, [*known.module_dict, *known.parent.module_dict], 1)
        hint = f'; did you mean {close[0]!r}?' if close else ''
        package = next((package for start, package in _OPTIMIZER_PACKAGES.items() if name.startswith(start)), None)
        hint = f'; install {package}, which has it' if package else hint
        raise UserError(f'optim_wrapper.optimizer.type: there is no optimizer {name!r}{hint}')


def _check_train_cfg(config: Config) -> None:
    settings = config.get('train_cfg') or {}
    for key, lowest in (('max_epochs', 1), ('max_iters', 1), ('val_interval', 1), ('val_begin', 0)):
        if settings.get(key) is not None:
            _check_int(f'train_cfg.{key}', settings[key], lowest)


def _check_loaders(config: Config) -> None:
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = config.get(name) or {}
        for key, lowest in (('batch_size', 1), ('num_workers', 0), ('prefetch_factor', 1)):
            if loader.get(key) is not None and not isinstance(loader[key], (list, tuple)):  # of several datasets
                _check_int(f'{name}.{key}', loader[key], lowest)
        if loader.get('persistent_workers') and loader.get('num_workers') == 0:
            raise UserError(f'{name}.num_workers=0 needs {name}.persistent_workers=False')
    accumulated = _at(config, 'optim_wrapper.accumulative_counts')
    if accumulated is not None:
        _check_int('optim_wrapper.accumulative_counts', accumulated, 1)
    rate = _at(config, 'optim_wrapper.optimizer.lr')
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1e6):
        raise UserError(f'optim_wrapper.optimizer.lr must be a number of at least 0 and below 1e6, got {rate!r}')


def _check_schedulers(config: Config) -> None:
    schedulers = config.get('param_scheduler') or []
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]):
        if not isinstance(scheduler, dict):
            continue
        key = f'param_scheduler.{i}'
        begin, end = scheduler.get('begin', 0), scheduler.get('end')
        _check_int(f'{key}.begin', begin, 0)
        if end is not None and end != float('inf'):
            _check_int(f'{key}.end', end, 1)
            if end <= begin:
                raise UserError(f'{key}: end must be above begin, got begin={begin} and end={end}')
        milestones = scheduler.get('milestones')
        if milestones is not None and list(milestones) != sorted(set(milestones)):
            raise UserError(f'{key}.milestones must rise, got {milestones}')


def _hooks(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, hook in (config.get('default_hooks') or {}).items():
        if isinstance(hook, dict):
            yield f'default_hooks.{name}', hook
        elif hook is not None and not hasattr(hook, 'priority'):
            raise UserError(f'default_hooks.{name} must be a dict with a type, or None, got {hook!r}')
    for i, hook in enumerate(config.get('custom_hooks') or []):
        if isinstance(hook, dict):
            yield f'custom_hooks.{i}', hook


def _check_checkpoint(key: str, hook: dict[str, Any], config: Config) -> None:
    _check_keys(key, hook, _CHECKPOINT_KEYS)
    if hook.get('interval', -1) != -1:  # never
        _check_int(f'{key}.interval', hook['interval'], 1)
    if hook.get('max_keep_ckpts', -1) != -1:
        _check_int(f'{key}.max_keep_ckpts', hook['max_keep_ckpts'], 1)
    best = hook.get('save_best')
    if best is None:
        return
    if not config.get('val_evaluator') or not config.get('val_dataloader'):
        raise UserError(f'{key}.save_best={best!r} needs a val_dataloader and a val_evaluator')
    known = _metrics(config.val_evaluator)
    for name in [best] if isinstance(best, str) else best:
        if known and name != 'auto' and name not in known:
            close = difflib.get_close_matches(str(name), known, 1, 0.3)
            hint = f'; did you mean {close[0]!r}?' if close else f'; there are {", ".join(known)}'
            raise UserError(f'{key}.save_best: val_evaluator has no metric {name!r}{hint}')


def _metrics(evaluator: Any) -> list[str]:
    """Return the names of an evaluator's metrics, or nothing where they are not known."""
    found: list[str] = []
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        if not isinstance(metric, dict) or metric.get('prefix'):
            return []
        kind = metric.get('type')
        if kind == 'CocoMetric':
            kinds = metric.get('metric', 'bbox')
            kinds = [kinds] if isinstance(kinds, str) else kinds
            if {'proposal', 'proposal_fast'} & set(kinds) or metric.get('classwise'):
                return []
            found += [f'coco/{name}_{value}' for name in kinds for value in _COCO]
        elif kind == 'IoUMetric':
            found += _IOU
        elif kind == 'Accuracy':
            if metric.get('thrs'):
                return []
            topk = metric.get('topk', (1,))
            found += [f'accuracy/top{k}' for k in ([topk] if isinstance(topk, int) else topk)]
        else:
            return []
    return found
