"""Losses of the validation set."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from mmengine.dist import all_reduce, get_comm_device, get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner, autocast
from torch.utils.data import DataLoader

from ..._nested import type_name
from ...errors import UserError, first_line
from ..random_numbers import restored_random_numbers, seed_all
from ..workers import protect_workers


@HOOKS.register_module()
class ValidationLossHook(Hook):
    """Log the losses of the validation set beside its metrics, as ``val/loss`` and ``val/loss_*``.

    The losses are those of training, of the weights that are validated, without gradients, dropout and random
    augmentation of batches. Annotations go through the validation pipeline with their images: OpenMMLab's pipelines
    load them after the image is resized, for metrics in its original size. This reads the validation images once more.
    The training stays the same: no random number of it changes.

    Other hooks see the losses as metrics: ``save_best='val/loss'``.
    """

    priority = 'HIGHEST'  # before mmengine's RuntimeInfoHook, which logs the metrics

    def __init__(self) -> None:
        self.loader: DataLoader[Any] | None = None
        self.batches: Iterator[Any] = iter(())
        self.sums: dict[str, float] = {}
        self.count = 0

    def before_train(self, runner: Runner) -> None:
        """Compute the losses of one batch.

        Raises:
            UserError: The model or the pipeline does not support that.
        """
        try:
            with restored_random_numbers():
                loader = self._build(runner)
                size = loader.batch_size or 1
                first: DataLoader[Any] = DataLoader(loader.dataset, size, collate_fn=loader.collate_fn)
                self._losses(runner, next(iter(first)))
        except UserError:
            raise
        except Exception as error:  # whatever models raise for what they cannot handle
            raise UserError(
                f'ValidationLossHook: the losses of {type(_model(runner)).__name__} on validation data cannot be '
                f'computed ({first_line(error)}); val_dataloader needs the annotations of training in its pipeline '
                '(LoadAnnotations)'
            ) from error

    def _build(self, runner: Runner) -> DataLoader[Any]:
        """Return the hook's own dataloader of the validation set."""
        if self.loader is None:
            config = deepcopy(runner.cfg.get('val_dataloader'))
            if not isinstance(config, dict):
                raise UserError('ValidationLossHook needs val_dataloader as a dict in the config')
            _load_first(config['dataset'])
            config['persistent_workers'] = False
            self.loader = runner.build_dataloader(config, seed=runner.seed)
            protect_workers(self.loader)
        return self.loader

    def before_val_epoch(self, runner: Runner) -> None:
        self.sums, self.count = {}, 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Add the losses of the next batch of the hook's own loader, which has as many as the loop's."""
        with restored_random_numbers():
            seed_all((runner.seed, get_rank(), batch_idx), with_cuda=True)  # the same at each validation
            if batch_idx == 0:
                self.batches = iter(self._build(runner))
            batch = next(self.batches)
            size = len(batch['inputs'])
            for name, value in self._losses(runner, batch).items():
                self.sums[name] = self.sums.get(name, 0.0) + value * size
            self.count += size

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.batches = iter(())  # ends its workers
        total = torch.tensor([*self.sums.values(), self.count], dtype=torch.float64, device=get_comm_device())
        all_reduce(total)
        means = (total[:-1] / total[-1]).tolist()
        if metrics is not None:
            metrics.update({f'val/{name}': mean for name, mean in zip(self.sums, means, strict=True)})

    @torch.no_grad()
    def _losses(self, runner: Runner, batch: Any) -> dict[str, float]:
        model = _model(runner)
        with _computes_losses(model), autocast(enabled=getattr(runner.val_loop, 'fp16', False)):
            data = model.data_preprocessor(batch, training=True)
            _, values = model.parse_losses(model(**data, mode='loss'))
        return {name: float(value) for name, value in values.items() if 'loss' in name}


def _model(runner: Runner) -> Any:
    model: Any = runner.model
    return model.module if is_model_wrapper(model) else model


@contextmanager
def _computes_losses(model: Any) -> Iterator[None]:
    """Set the model to evaluation, but its parts that have a loss: some return what it needs in training only."""
    modes = {module: module.training for module in model.modules()}
    preprocessor = model.data_preprocessor
    augments = getattr(preprocessor, 'batch_augments', None)
    try:
        for module in modes:
            module.training = hasattr(module, 'loss') or hasattr(module, 'loss_by_feat')
        if augments is not None:
            preprocessor.batch_augments = None  # Mosaic, Mixup and random sizes
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        if augments is not None:
            preprocessor.batch_augments = augments


def _load_first(dataset: dict[str, Any]) -> None:
    """Move what loads to the beginning of the pipelines of a dataset, or of those within a wrapper."""
    if 'pipeline' in dataset:  # otherwise in their order
        steps = dataset['pipeline']
        dataset['pipeline'] = sorted(steps, key=lambda step: not type_name(step['type']).startswith('Load'))
    inner = dataset.get('datasets') or [one for one in [dataset.get('dataset')] if one]
    for one in inner:
        _load_first(one)
