"""Check that a work directory takes the checkpoints of a training, before it starts and when a write fails."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend
from mmengine.runner import Runner
from torch.optim import SGD, Adagrad, Optimizer, RMSprop

from ..checkpoints import AtomicCheckpointHook, write_atomically
from .cli import UserError
from .optimizers import single_wrappers

# Of a checkpoint besides tensors: the text of the config, the history of the log, the random state.
_OVERHEAD = 200_000  # bytes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_GONE = (errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ESTALE, errno.EIO)


def check_writable(work_dir: str) -> None:
    """Create the work directory and a file in it.

    Raises:
        UserError: That fails.
    """
    probe = Path(work_dir, f'.writable.{os.getpid()}')
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(probe, b'')
        probe.unlink()
    except OSError as error:
        raise UserError(f'work directory {work_dir}: {error.strerror}; choose another --work-dir') from error


def check_space(runner: Runner) -> None:
    """Compare the free space with the checkpoints that a training is going to keep.

    Quotas are not looked at: the operating system names the space of the whole file system.

    Raises:
        UserError: It is too small.
    """
    hook = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
    if hook is None or not isinstance(hook.file_backend, LocalBackend):
        return
    directory = Path(hook.out_dir)
    directory.mkdir(parents=True, exist_ok=True)
    weights = sum(t.numel() * t.element_size() for t in runner.model.state_dict().values())
    whole = _OVERHEAD + weights + (_optimizer_bytes(runner.optim_wrapper) if hook.save_optimizer else 0)
    saves = _remaining_saves(runner, hook)
    if hook.max_keep_ckpts > 0:
        existing = sum(Path(directory, hook.filename_tmpl.format(i)).exists() for i in hook.keep_ckpt_ids)
        # One more, because the outdated one is deleted when the new one is whole.
        saves = min(saves, hook.max_keep_ckpts - existing + 1)
    best = len(hook.save_best or ()) * weights
    needed, free = saves * whole + best, shutil.disk_usage(directory).free
    if needed > free:
        keep = max(1, (free - best) // max(whole, 1) - 1)
        raise UserError(
            f'{directory} has {_size(free)} free, and the checkpoints of this training need about {_size(needed)} '
            f'({saves} of {_size(whole)}); free some space, choose another --work-dir, or keep fewer checkpoints: '
            f'--cfg-options default_hooks.checkpoint.max_keep_ckpts={keep}'
        )


def _remaining_saves(runner: Runner, hook: AtomicCheckpointHook) -> int:
    loop = runner.train_loop
    remaining = loop.max_epochs - loop.epoch if hook.by_epoch else loop.max_iters - loop.iter
    regular = max(0, remaining) // hook.interval if hook.interval > 0 else 0
    return regular + int(hook.save_last and (hook.interval <= 0 or remaining % hook.interval > 0))


def _optimizer_bytes(wrapper: Any) -> int:
    """Return the size of the state of an optimizer once it has one: one or two values per parameter, as a rule."""
    optimizers = [w.optimizer for w in single_wrappers(wrapper)]
    return sum(
        _values(o, g) * p.numel() * p.element_size()
        for o in optimizers
        for g in o.param_groups
        for p in g['params']
        if p.requires_grad
    )


def _values(optimizer: Optimizer, group: dict[str, Any]) -> int:
    if isinstance(optimizer, SGD):
        return int(group['momentum'] > 0)
    return 1 if isinstance(optimizer, (Adagrad, RMSprop)) else 2


def _size(count: int) -> str:
    for unit in ('B', 'kB', 'MB', 'GB'):
        if count < 1000:
            return f'{count:.3g} {unit}'
        count = count / 1000  # type: ignore[assignment]
    return f'{count:.3g} TB'


def failed_write(error: BaseException, work_dir: str) -> UserError | None:
    """Return the line for an error of the operating system while a training writes, ``None`` for all others."""
    if not isinstance(error, OSError):
        return None
    if error.errno in _FULL:
        problem = str(error.strerror)
    elif error.errno in _GONE and error.filename and _within(str(error.filename), work_dir):
        gone = '' if Path(work_dir).is_dir() else ' (the directory is gone)'
        problem = f'{error.strerror}: {error.filename}{gone}'
    else:
        return None
    try:
        last = Path(work_dir, 'last_checkpoint').read_text().strip()
    except OSError:
        last = ''
    whole = f'the last checkpoint is {last}; go on with --resume' if last else 'no checkpoint is saved yet'
    return UserError(f'work directory {work_dir}: {problem}; make it writable again; {whole}')


def _within(path: str, directory: str) -> bool:
    return Path(path).absolute().is_relative_to(Path(directory).absolute())
