"""Batches whose random augmentation depends on their position alone, not on what the process did before.

Worker processes have random states of their own, which no checkpoint holds, and mmengine seeds them alike at every
start: a resumed training would repeat the augmentation of the first epoch. Here each batch of indices brings its seed:
the training's seed, the rank, the number of the pass over the data and the number of the batch in it. A batch is then
the same in an unbroken training and in a resumed one, with any number of workers.
"""

from collections.abc import Iterator
from typing import Any, SupportsIndex

from mmengine.dist import get_rank, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, Sampler

from .random_numbers import seed_all


class SeededBatch(list[Any]):
    """Indices of a batch; iterating over them, as a dataloader does, seeds the process first."""

    def __init__(self, indices: Any, entropy: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.entropy = entropy

    def __iter__(self) -> Iterator[Any]:
        seed_all(self.entropy)
        return super().__iter__()

    def __reduce_ex__(self, _protocol: SupportsIndex) -> Any:  # list's own would iterate
        return SeededBatch, (tuple(super().__iter__()), self.entropy)


@DATA_SAMPLERS.register_module()
class SeededBatchSampler(Sampler[SeededBatch]):
    """Give the batches of another batch sampler their seeds, and start at any of them.

    Args:
        sampler: Of indices.
        batch_size: Samples of a batch.
        drop_last: Leave out a last batch that is smaller; without ``batch_sampler``.
        batch_sampler: Config of another batch sampler, such as mmdet's ``AspectRatioBatchSampler``; by default torch's.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        batch_size: int,
        drop_last: bool = False,
        batch_sampler: dict[str, Any] | None = None,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.batch_sampler: Any = (
            BatchSampler(sampler, batch_size, drop_last)
            if batch_sampler is None
            else DATA_SAMPLERS.build(batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size))
        )
        seed = getattr(sampler, 'seed', None)
        self.seed = int(sync_random_seed() if seed is None else seed)
        self.rank = get_rank()
        self.next_pass = self.skip = 0
        self.waits = False

    def wait(self) -> None:
        """Give no batches until :meth:`start`.

        mmengine's ``IterBasedTrainLoop`` starts the workers before it resumes, and they would load batches of which a
        sampler without an end would give none a second time.
        """
        self.waits = True

    def start(self, number: int, skip: int) -> None:
        """Set the pass over the data that begins next.

        Args:
            number: Of the pass, from 0; mmengine calls it epoch.
            skip: Batches that are left out; if the pass has fewer, also those of the passes after it.
        """
        self.next_pass, self.skip, self.waits = number, skip, False

    def set_seed(self, seed: int) -> None:
        """Set the seed of the batches and of the sampler of indices, before the first batch."""
        self.seed = seed
        if hasattr(self.sampler, 'seed'):
            self.sampler.seed = seed

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[SeededBatch]:
        if self.waits:
            return
        skip, self.skip = self.skip, 0
        while True:
            number, self.next_pass = self.next_pass, self.next_pass + 1
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(number)
            index = -1
            for index, batch in enumerate(self.batch_sampler):
                if index >= skip:
                    yield SeededBatch(batch, (self.seed, self.rank, number, index))
            if skip <= index + 1 or index < 0:
                return
            skip -= index + 1
