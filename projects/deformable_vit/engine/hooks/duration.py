"""Say early how long a training will take."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class DurationHook(Hook):
    """Log once, after the first iterations, the seconds per iteration and how long all remaining ones will take.

    The times are those of mmengine's ``IterTimerHook``, without the first iteration, which also starts workers and
    compiles kernels, where there are others.

    Args:
        iterations: Log after this many iterations,
        seconds: or as soon as they have taken this long.
    """

    priority = 'VERY_LOW'  # after IterTimerHook
    slow = 10.0  # seconds per iteration on a CPU from which on the line gives advice

    def __init__(self, iterations: int = 10, seconds: float = 30) -> None:
        self.iterations, self.seconds = iterations, seconds

    def before_train(self, runner: Runner) -> None:
        self._times: list[float] = []
        self._done = False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        history = runner.message_hub.log_scalars.get('train/time')
        if self._done or history is None:
            return
        self._times.append(history.current())
        if len(self._times) < self.iterations and sum(self._times) < self.seconds:
            return
        self._done = True
        measured = self._times[1:] or self._times
        if remaining := runner.max_iters - runner.iter - 1:
            print_log(_line(sum(measured) / len(measured), remaining), 'current')


def _line(each: float, remaining: int) -> str:
    line = f'{each:.3g} s per iteration: {_duration(each * remaining)} for the remaining {remaining}, plus validation'
    if each >= DurationHook.slow and not torch.accelerator.is_available():
        line += '; on a CPU, take smaller images, a smaller batch or a smaller model'
    return line


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f'about {days} d {hours} h'
    if hours:
        return f'about {hours} h {minutes % 60} min'
    return f'about {minutes} min' if minutes else f'about {seconds:.0f} s'
