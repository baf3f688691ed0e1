"""A hook for the test of interrupted training: it signals the second epoch, and slows it down."""

import time
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class SlowSecondEpoch(Hook):
    """Write ``second_epoch`` into the work directory when the second epoch begins, and sleep in its iterations."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if runner.epoch == 1:
            (Path(runner.work_dir) / 'second_epoch').touch()
            time.sleep(30)
