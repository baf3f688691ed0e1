"""Training loops that continue at the batch after the last one, without loading those before it."""

import logging
from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from ..errors import UserError
from .samples import SeededBatchSampler
from .workers import without_workers

Loader = DataLoader[Any] | dict[str, Any]


def _build(runner: Runner, dataloader: Loader, loop: str) -> DataLoader[Any]:
    """Return the dataloader of a loop, which needs a :class:`SeededBatchSampler`.

    Raises:
        UserError: It has another batch sampler.
    """
    if isinstance(dataloader, dict):
        randomness = runner.cfg.get('randomness') or {}
        built = runner.build_dataloader(
            dataloader, seed=runner.seed, diff_rank_seed=randomness.get('diff_rank_seed', False)
        )
    else:
        built = dataloader
    if not isinstance(built.batch_sampler, SeededBatchSampler):
        raise UserError(
            f"{loop} needs train_dataloader.batch_sampler=dict(type='deformable_vit.engine.SeededBatchSampler'), got "
            f'{type(built.batch_sampler).__name__}'
        )
    return built


def _start(loop: Any, number: int, skip: int) -> None:
    """Set where the sampler of a loop begins, and the seed of the checkpoint that the runner has resumed from."""
    sampler = loop.dataloader.batch_sampler
    if sampler.seed == loop.built_seed:  # not one of the sampler's own
        loop.built_seed = loop.runner.seed
        sampler.set_seed(loop.runner.seed)
    sampler.start(number, skip)


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, which also continues in the middle of an epoch.

    The position in the epoch follows from the iteration, so that checkpoints of plain mmengine resume exactly, too.
    """

    def __init__(self, runner: Runner, dataloader: Loader, *args: Any, **kwargs: Any) -> None:
        self.built_seed = runner.seed
        super().__init__(runner, _build(runner, dataloader, type(self).__name__), *args, **kwargs)
        self.first_batch = 0  # of the epoch that runs

    def run(self) -> nn.Module:
        """Launch training."""
        self.first_batch = self._position() if self.iter else 0
        return super().run()

    def _position(self) -> int:
        """Return the batches of the current epoch that the checkpoint has behind it."""
        size = len(self.dataloader)
        saved = self.runner.message_hub.runtime_info  # of the checkpoint, until mmengine's RuntimeInfoHook updates it
        if 'max_iters' in saved and saved.get('max_epochs'):
            size = int(saved['max_iters']) // int(saved['max_epochs'])
        position = self.iter - self.epoch * size
        if size == len(self.dataloader) or position == 0:
            return max(position, 0)
        print_log(
            f'an epoch has {len(self.dataloader)} batches now and had {size}: epoch {self.epoch + 1} starts again',
            'current',
            logging.WARNING,
        )
        return 0

    def run_epoch(self) -> None:
        """Iterate over what is left of an epoch."""
        _start(self, self.epoch, self.first_batch)
        super().run_epoch()
        self.first_batch = 0

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Iterate one batch; ``idx`` counts those of this process."""
        super().run_iter(self.first_batch + idx, data_batch)


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, which skips trained batches by their indices instead of loading them."""

    def __init__(self, runner: Runner, dataloader: Loader, *args: Any, **kwargs: Any) -> None:
        self.built_seed = runner.seed
        built = _build(runner, dataloader, type(self).__name__)
        sampler: Any = built.batch_sampler
        sampler.wait()
        super().__init__(runner, built, *args, **kwargs)

    def run(self) -> nn.Module:
        """Launch training."""
        _start(self, 0, self.iter)
        self.dataloader: DataLoader[Any] = without_workers(self.dataloader)  # hooks may still change it
        # The fork asks for no batches to skip with this setting.
        skipped = 0 if getattr(self, 'fast_forward_on_resume', False) else self.iter
        self.dataloader_iterator = EndlessBatches(self, skipped)
        return super().run()


class EndlessBatches:
    """Batches of a loop's dataloader without end, of which the sampler has left out the first ones.

    Args:
        loop: Its sampler starts behind the batches that are left out, and its workers after the hooks of the training.
        skipped: Their number. mmengine asks for each of them before training, and its fork calls :meth:`skip_iter`.
    """

    def __init__(self, loop: IterBasedTrainLoop, skipped: int) -> None:
        self.loop = loop
        self.skipped = skipped
        self.batches: Iterator[Any] | None = None

    def skip_iter(self, count: int) -> None:
        """Skip batches as ``count`` calls of ``next`` would."""
        self.skipped -= count

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.skipped > 0:
            self.skipped -= 1
            return None
        if self.batches is None:
            self.batches = iter(self.loop.dataloader)
        try:
            return next(self.batches)
        except StopIteration:
            self.batches = iter(self.loop.dataloader)
            return next(self.batches)
