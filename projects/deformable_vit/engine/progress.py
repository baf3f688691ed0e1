"""Tell another process how far a run is, in a small file of JSON."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner

PROGRESS = 'DEFORMABLE_VIT_PROGRESS'
_WINDOW = 20  # iterations, over which the loss is averaged


@dataclass(frozen=True)
class RunProgress:
    """State of a run.

    Attributes:
        task: ``train``, ``val`` (during training) or ``test``.
        done: Iterations so far; with ``train`` those of earlier, resumed runs too.
        total: Iterations of the whole task.
        loss: Mean of the last iterations of training, also during its validation.
    """

    task: str
    done: int
    total: int
    loss: float | None = None


def read_progress(file: str | Path) -> RunProgress | None:
    """Return what :class:`ProgressHook` wrote, or ``None`` if the run has not begun."""
    path = Path(file)
    return RunProgress(**json.loads(path.read_text())) if path.exists() else None


class ProgressHook(Hook):
    """Write a :class:`RunProgress` to a file, at most twice a second and at the end of each task."""

    priority = 'VERY_LOW'

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.written = 0.0

    def _write(self, task: str, done: int, total: int, hub: MessageHub | None = None) -> None:
        now = time.monotonic()
        if not is_main_process() or (now - self.written < 0.5 and done < total):
            return
        self.written = now
        losses = hub.log_scalars.get('train/loss') if hub else None
        loss = float(losses.mean(_WINDOW)) if losses else None
        partial = self.file.with_name(f'{self.file.name}.part')
        partial.write_text(json.dumps(asdict(RunProgress(task, done, total, loss))))
        os.replace(partial, self.file)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self._write('train', runner.iter + 1, runner.max_iters, runner.message_hub)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        self._write('val', batch_idx + 1, len(runner.val_dataloader), runner.message_hub)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        self._write('test', batch_idx + 1, len(runner.test_dataloader))
