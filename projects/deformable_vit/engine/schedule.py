"""Check the learning rate schedule of a run that is about to start."""

from collections.abc import Iterable

from mmengine.optim import ConstantParamScheduler, LinearParamScheduler, _ParamScheduler
from mmengine.runner import Runner


def warmup_warning(runner: Runner) -> str | None:
    """Return a warning if warm-up takes more than a tenth of all iterations, else ``None``.

    Args:
        runner: At the beginning of training, with its schedulers built.
    """
    for i, scheduler in enumerate(_schedulers(runner.param_schedulers)):
        if not _is_warmup(scheduler):
            continue
        # `end` of a scheduler that steps once per epoch counts epochs.
        length = runner.max_iters // runner.max_epochs if scheduler.by_epoch else 1
        warmup = min(scheduler.end * length, runner.max_iters) - scheduler.begin * length
        total = runner.max_iters
        if 10 * warmup > total:
            return (
                f'warm-up takes {warmup} of {total} iterations ({100 * warmup // total} %), with a low learning rate: '
                f'set param_scheduler.{i}.end for at most {total // 10} iterations, or train longer (train_cfg)'
            )
    return None


def _schedulers(built: dict[str, list[_ParamScheduler]] | list[_ParamScheduler] | None) -> Iterable[_ParamScheduler]:
    """Return the schedulers of a runner that has one optimizer; those of several are not checked."""
    return built if isinstance(built, list) else []


def _is_warmup(scheduler: _ParamScheduler) -> bool:
    if isinstance(scheduler, LinearParamScheduler):
        return scheduler.start_factor < scheduler.end_factor
    return isinstance(scheduler, ConstantParamScheduler) and scheduler.factor < 1
