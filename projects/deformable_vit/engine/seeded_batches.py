"""Random augmentation that depends on the position of a batch alone, not on what a process did before.

Worker processes have random states of their own, which no checkpoint holds, and mmengine seeds them alike at every
start: a resumed training would repeat the augmentation of the first epoch. Here each batch of indices brings its seed:
the training's seed, the rank, the number of the pass over the data and the number of the batch in it. A batch is then
the same in one unbroken training and in several parts, with any number of workers.
"""

import random
from collections.abc import Iterator
from typing import Any, SupportsIndex

import numpy as np
import torch
from mmengine.dist import get_rank, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, Sampler

from .random_state import seed_all


class SeededBatch(list[Any]):
    """Indices of a batch. Reading them from first to last, as a dataloader does, seeds the process meanwhile."""

    def __init__(self, indices: Any, entropy: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.entropy = entropy

    def __iter__(self) -> Iterator[Any]:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        seed_all(self.entropy)
        try:
            yield from super().__iter__()
        finally:  # without workers this is the process of the model, whose random numbers are a sequence of their own
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])

    def __reduce_ex__(self, _protocol: SupportsIndex) -> Any:  # list's own would iterate
        return SeededBatch, (tuple(super().__iter__()), self.entropy)


class SeededBatchSampler(Sampler[SeededBatch]):
    """Give the batches of another batch sampler their seeds, and begin in the middle.

    Args:
        sampler: Of indices.
        inner: Of batches of these indices.
        skip: Batches of the first pass that are left out; if it has fewer, also those of the passes after it.

    Attributes:
        next_pass: Number of the next pass over the data, which mmengine calls epoch.
    """

    def __init__(self, sampler: Sampler[int], inner: BatchSampler, skip: int = 0) -> None:
        self.sampler = sampler
        self.inner = inner
        self.skip = skip
        self.next_pass = 0
        seed = getattr(sampler, 'seed', None)
        self.seed = int(sync_random_seed() if seed is None else seed)
        self.rank = get_rank()

    def __getattr__(self, name: str) -> Any:
        if name == 'inner':  # not yet set, while unpickling
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[SeededBatch]:
        skip, self.skip = self.skip, 0
        while True:
            number, self.next_pass = self.next_pass, self.next_pass + 1
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(number)
            index = -1
            for index, batch in enumerate(self.inner):
                if index >= skip:
                    yield SeededBatch(batch, (self.seed, self.rank, number, index))
            if skip <= index + 1 or index < 0:
                return
            skip -= index + 1


@DATA_SAMPLERS.register_module()
def seeded_batch_sampler(
    sampler: Sampler[int],
    batch_size: int,
    inner: dict[str, Any] | None = None,
    drop_last: bool = False,
    skip: int = 0,
) -> SeededBatchSampler:
    """Build the batch sampler of a config, by default torch's, and the :class:`SeededBatchSampler` around it."""
    if inner is None:
        return SeededBatchSampler(sampler, BatchSampler(sampler, batch_size, drop_last), skip)
    built = DATA_SAMPLERS.build(inner, default_args=dict(sampler=sampler, batch_size=batch_size))
    return SeededBatchSampler(sampler, built, skip)


def seed_batches(loader: Any, skip: int = 0) -> bool:
    """Change the config of a training dataloader so that its batches are seeded.

    Args:
        loader: As mmengine's Runner holds it before training.
        skip: Batches that an earlier process trained on; for training by iteration.

    Returns:
        Whether it has a sampler, and so batches that can be seeded.
    """
    if not isinstance(loader, dict) or not isinstance(loader.get('sampler'), dict) or 'batch_size' not in loader:
        return False
    inner = loader.get('batch_sampler')
    if inner is not None and not isinstance(inner, dict):
        return False
    loader['batch_sampler'] = dict(
        type='seeded_batch_sampler', inner=inner, drop_last=loader.pop('drop_last', False), skip=skip
    )
    return True
