"""Stop a training before a sample or a number spoils it: one line with the file or the terms, and a checkpoint.

``default_hooks.guard`` of a config sets the policy; see :class:`Policy`.
"""

import difflib
import math
import multiprocessing
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..checkpoints import write_atomically
from .cli import UserError, first_line
from .optimizers import single_wrappers
from .resuming import RandomStateHook
from .stopping import interrupted_name

_GUARDED = 'guarded_dataset'
_WARNINGS = 10  # about skipped samples, of a process


class TrainingError(UserError):
    """An error in the middle of a training, of a process that may not be the main one."""

    of_one_process = True


class BadSampleError(TrainingError):
    """An error in a sample, with its file and record."""


@dataclass(frozen=True)
class Policy:
    """What a training does about bad samples and numbers: ``--cfg-options default_hooks.guard.KEY=VALUE``.

    Attributes:
        on_bad_sample: ``raise`` stops after saving a checkpoint, ``skip`` takes another sample.
        max_bad_samples: Part of an epoch's samples that may be skipped.
        on_non_finite: ``raise`` stops before a loss that is not finite changes the weights, ``skip`` leaves the
            iteration out; for one process.
        max_non_finite: Consecutive iterations that may be left out.
        max_lr_growth: Largest learning rate, in units of the config's.
    """

    on_bad_sample: str = 'raise'
    max_bad_samples: float = 0.01
    on_non_finite: str = 'raise'
    max_non_finite: int = 10
    max_lr_growth: float = 100.0

    def __post_init__(self) -> None:
        for key in ('on_bad_sample', 'on_non_finite'):
            if getattr(self, key) not in ('raise', 'skip'):
                raise UserError(f"default_hooks.guard.{key} must be 'raise' or 'skip', got {getattr(self, key)!r}")
        for key in ('max_bad_samples', 'max_non_finite', 'max_lr_growth'):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise UserError(f'default_hooks.guard.{key} must be a number of at least 0, got {value!r}')


def take_policy(config: Config) -> Policy:
    """Remove ``default_hooks.guard`` from a config, where mmengine would look for a hook, and return it."""
    settings = dict((config.get('default_hooks') or {}).pop('guard', None) or {})
    known = [field.name for field in fields(Policy)]
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f'; did you mean {close[0]!r}?' if close else f'; there are {", ".join(known)}'
            raise UserError(f'default_hooks.guard: unknown key {key!r}{hint}')
    return Policy(**settings)


class GuardedSamples:
    """Name the file and record of a sample that cannot be read, or replace the sample.

    It stands in place of a dataset's ``prepare_data``; None makes mmengine's datasets take another sample.
    """

    def __init__(self, dataset: Any, skip: bool, limit: float) -> None:
        self.dataset, self.prepare, self.skip, self.limit = dataset, dataset.prepare_data, skip, limit
        self.warned = 0

    def __call__(self, index: int) -> Any:
        try:
            return self.prepare(index)
        except Exception as error:  # transforms are anybody's code
            line = f'{describe_sample(self.dataset, index)}: {first_line(error)}'
            if not self.skip:
                raise BadSampleError(line) from error
        with _skipped.get_lock():
            _skipped.value += 1
            number = _skipped.value
        if number > self.limit:
            raise BadSampleError(
                f'{number} samples of this epoch cannot be used, more than default_hooks.guard.max_bad_samples allows; '
                f'the last is {line}'
            )
        if self.warned < _WARNINGS:
            self.warned += 1
            print_log(f'skipped: {line}', 'current', 30)
        return None


# Skipped samples of an epoch, in all worker processes.
_skipped: Any = multiprocessing.Value('i', 0)


def describe_sample(dataset: Any, index: int) -> str:
    """Return the files and the record of a sample as text."""
    try:
        info: Mapping[str, Any] = dataset.get_data_info(index)
    except Exception as error:
        return f'sample {index} ({first_line(error)})'
    parts = [f'{key} {info[key]}' for key in ('img_path', 'seg_map_path', 'xml_path') if info.get(key)]
    record = [f'image id {info["img_id"]!r}'] if 'img_id' in info else []
    return f'sample {index} ({", ".join([*parts, *record])})'


@DATASETS.register_module(name=_GUARDED)
def guarded_dataset(dataset: dict[str, Any], skip: bool, allowed: float) -> Any:
    """Build a dataset and guard its samples, also those within wrappers; this is no wrapper itself."""
    built = DATASETS.build(dataset)
    leaves = [built]
    while leaves:
        leaf = leaves.pop()
        inner = [leaf.dataset] if hasattr(leaf, 'dataset') else list(getattr(leaf, 'datasets', ()))
        if inner:
            leaves += inner
        elif hasattr(leaf, 'prepare_data'):
            leaf.prepare_data = GuardedSamples(leaf, skip, max(1.0, allowed * len(built)))
    return built


class GuardHook(Hook):
    """Check the numbers of each iteration before they change the weights."""

    priority = 'VERY_HIGH'

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.terms: dict[str, Any] = {}
        self.buffers: list[tuple[Tensor, Tensor]] = []  # of normalization, with their values before the iteration
        self.streak = self.left_out = self.seen = 0

    def before_train(self, runner: Runner) -> None:
        _check_iterations(runner)
        model: Any = _bare(runner.model)
        self.buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        if hasattr(model, 'parse_losses'):
            model.parse_losses = self._remember_terms(model.parse_losses)
        for wrapper in single_wrappers(runner.optim_wrapper):
            wrapper.update_params = self._checked(runner, wrapper.update_params)

    def after_train(self, runner: Runner) -> None:
        """Restore the methods of the classes."""
        vars(_bare(runner.model)).pop('parse_losses', None)
        for wrapper in single_wrappers(runner.optim_wrapper):
            vars(wrapper).pop('update_params', None)
        self._summarize()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        for group in (group for wrapper in single_wrappers(runner.optim_wrapper) for group in wrapper.param_groups):
            limit = self.policy.max_lr_growth * group.get('initial_lr', group['lr'])
            if not 0 <= group['lr'] <= limit or math.isinf(group['lr']):
                raise TrainingError(
                    f'iteration {runner.iter + 1}: the learning rate is {group["lr"]:g}, '
                    f'and default_hooks.guard.max_lr_growth allows 0 to {limit:g}; check param_scheduler{save(runner)}'
                )
        if self.buffers:
            torch._foreach_copy_([saved for _, saved in self.buffers], [buffer for buffer, _ in self.buffers])

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self.seen += 1
        if self.seen >= len(runner.train_dataloader):  # also where training is by iteration
            self._summarize()

    def _summarize(self) -> None:
        with _skipped.get_lock():
            skipped, _skipped.value = _skipped.value, 0
        if skipped:
            print_log(f'{skipped} bad samples of this epoch were replaced by others', 'current', 30)
        if self.left_out:
            print_log(f'{self.left_out} iterations of this epoch had a loss that is not finite', 'current', 30)
        self.seen = self.left_out = 0

    def _remember_terms(self, parse: Callable[..., Any]) -> Callable[..., Any]:
        def parse_losses(losses: dict[str, Any]) -> Any:
            total, self.terms = parse(losses)
            return total, self.terms

        return parse_losses

    def _checked(self, runner: Runner, update: Callable[..., None]) -> Callable[..., None]:
        def update_params(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            if torch.isfinite(loss.detach()).all():
                self.streak = 0
                update(loss, *args, **kwargs)
                return
            if self.buffers:
                torch._foreach_copy_([buffer for buffer, _ in self.buffers], [saved for _, saved in self.buffers])
            line = f'iteration {runner.iter + 1}: the loss is not finite ({_terms(self.terms)})'
            self.streak, self.left_out = self.streak + 1, self.left_out + 1
            if self.policy.on_non_finite == 'raise' or self.streak > self.policy.max_non_finite:
                again = f', {self.streak} times in a row' if self.streak > 1 else ''
                raise TrainingError(f'{line}{again}; lower the learning rate or check the data{save(runner)}')
            print_log(f'{line}; left out', 'current', 30)

        return update_params


def _check_iterations(runner: Runner) -> None:
    loader = runner.train_dataloader
    by_epoch = not hasattr(runner.train_loop, 'dataloader_iterator')  # by iteration, an endless sampler has batches
    if runner.max_iters < 1 or (by_epoch and not len(loader)):
        size = getattr(loader.batch_sampler, 'batch_size', loader.batch_size)
        raise UserError(
            f'there are no iterations to train: train_dataloader has {len(loader.dataset)} samples in {len(loader)} '
            f'batches of {size} (drop_last leaves out a smaller one), train_cfg has {runner.max_epochs} '
            'epochs'
        )


def _terms(terms: Mapping[str, Any]) -> str:
    """Return the terms of a loss as text, those that are not finite first."""
    values = {key: float(value.detach().mean() if isinstance(value, Tensor) else value) for key, value in terms.items()}
    ordered = sorted(values.items(), key=lambda item: math.isfinite(item[1]))
    return ', '.join(f'{key}={value:.4g}' for key, value in ordered)


def _bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def save(runner: Runner) -> str:
    """Save a checkpoint of the iterations that are complete, and return for a message what was saved."""
    if runner.iter == 0:
        return '; nothing was trained yet'
    if not is_main_process():
        return f'; this is process {get_rank()}, and the main one saves: resume from the last checkpoint'
    if not all(bool(torch.isfinite(p).all()) for p in _bare(runner.model).parameters()):
        return '; the weights are not finite either, so resume from an earlier checkpoint'
    name = interrupted_name(runner, runner.epoch, runner.iter)
    for hook in runner.hooks:
        if isinstance(hook, RandomStateHook):
            hook.capture_here()
    path = Path(runner.work_dir) / name
    try:
        runner.save_checkpoint(runner.work_dir, name, meta=dict(epoch=runner.epoch, iter=runner.iter), by_epoch=False)
        write_atomically(Path(runner.work_dir) / 'last_checkpoint', str(path).encode())
    except OSError as error:  # the reason for stopping matters more
        return f'; no checkpoint could be saved ({error.strerror})'
    return f'; {path} has the {runner.iter} iterations before, --resume continues from there'


@contextmanager
def guarded(runner: Runner, policy: Policy, task: str) -> Iterator[None]:
    """Guard the training or test that runs within the context; enter it before dataloaders are built.

    Raises:
        UserError: With the file of a bad sample, or the terms of a loss that is not finite.
    """
    if policy.on_non_finite == 'skip' and get_world_size() > 1:  # the others would wait for gradients
        raise UserError('default_hooks.guard.on_non_finite=skip works with one process only; use raise')
    skip = policy.on_bad_sample == 'skip'
    for name in ('train', 'val') if task == 'train' else ('test',):
        loader = getattr(runner, f'_{name}_dataloader', None)
        if isinstance(loader, dict) and isinstance(loader.get('dataset'), dict):
            dataset = dict(
                type=_GUARDED,
                dataset=loader['dataset'],
                skip=skip and name == 'train',  # metrics need every sample
                allowed=policy.max_bad_samples,
            )
            setattr(runner, f'_{name}_dataloader', dict(loader, dataset=dataset))
    _skipped.value = 0
    runner.register_hook(GuardHook(policy))
    try:
        yield
    except BadSampleError as error:
        # An error of a worker process has its traceback in the message.
        lines = re.findall(r'BadSampleError: (.*)', str(error)) or [' '.join(str(error).split())]
        raise TrainingError(f'{lines[-1]}{save(runner) if task == "train" else ""}') from error
    except ValueError:
        if task == 'train' and hasattr(runner.train_loop, 'dataloader') and runner.iter == 0:
            _check_iterations(runner)  # schedulers, built before training begins, fail on an epoch of no iterations
        raise
