"""Random numbers of an iteration that do not depend on the iterations before it."""

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..random_numbers import seed_all


@HOOKS.register_module()
class SeedHook(Hook):
    """Seed all random number generators from (seed, rank, iteration) before each iteration of training.

    Dropout and drop path are then the same in an unbroken training and in one that was resumed, also from a checkpoint
    of plain mmengine, which holds no state of the generators.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_all((runner.seed, get_rank(), runner.iter), with_cuda=True)
