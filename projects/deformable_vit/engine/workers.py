"""Worker processes of the dataloaders of a training."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader


class SignalProofWorker:
    """Start a worker that works on when a terminal or Slurm sends a signal to all processes; its training ends it.

    Args:
        then: The dataloader's own ``worker_init_fn``.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then
        # When a process exits, Python sends SIGTERM to persistent workers, and waits for them.
        self.exits = multiprocessing.RawValue('b', 0)
        atexit.register(setattr, self.exits, 'value', 1)

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._receive)
        if self.then is not None:
            self.then(worker)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.exits.value:
            os._exit(0)


def protect_workers(loader: DataLoader[Any]) -> None:
    """Let the workers that a dataloader starts ignore the signals of a stop."""
    if not isinstance(loader.worker_init_fn, SignalProofWorker):
        loader.worker_init_fn = SignalProofWorker(loader.worker_init_fn)


def without_workers(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a copy of a dataloader that has not started its workers; persistent ones stay those of a dataloader."""
    if loader.batch_size is None:
        batches: dict[str, Any] = dict(batch_sampler=loader.batch_sampler)
    else:
        batches = dict(batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last)
    return DataLoader(
        loader.dataset,
        **batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


def restart_workers(loop: Any) -> None:
    """Apply changes to the dataloader of mmengine's ``IterBasedTrainLoop``, which has started the workers already."""
    loader = loop.dataloader
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    # Other samplers may have given batches to the workers that they give only once.
    if type(loop) is IterBasedTrainLoop and loader.num_workers and type(sampler) in (DefaultSampler, InfiniteSampler):
        iterator, loop.dataloader_iterator = type(loop.dataloader_iterator), None
        loop.dataloader = without_workers(loader)
        del loader
        if isinstance(sampler, InfiniteSampler):  # which has ended with its first iterator
            sampler.indices = InfiniteSampler(sampler.dataset, sampler.shuffle, sampler.seed).indices
        loop.dataloader_iterator = iterator(loop.dataloader)
