"""Protect the checkpoints in a work directory from a kill, a full disk, a second training and the next one."""

import errno
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...checkpoints import enable_atomic_writing, remove_partial_files, write_atomically
from ...errors import UserError
from ..resuming import resumable_checkpoints

# Workers of a process that was killed hold its lock until they notice it.
_WORKERS_END = 20.0  # seconds


@HOOKS.register_module()
class WorkDirHook(Hook):
    """Protect the checkpoints in the work directory of a training.

    - A second training in the same directory stops with an error that names the first one.
    - Checkpoints are written atomically, and outdated ones are removed after that; nothing outside the directory is.
    - The checkpoints of an earlier training move to ``previous_TIME``; when this one resumes, only newer ones.
    - ``last_checkpoint`` names the newest whole checkpoint when a training resumes, also after a crash of the machine.
    """

    priority = 'VERY_HIGH'  # before the CheckpointHook chooses a backend

    def before_run(self, runner: Runner) -> None:
        if not runner.cfg.get('resume') or runner.cfg.get('load_from') or not is_main_process():
            return
        if newest := resumable_checkpoints(runner.work_dir)[:1]:  # mmengine resumes from what the file names
            write_atomically(Path(runner.work_dir, 'last_checkpoint'), str(newest[0]).encode())

    def before_train(self, runner: Runner) -> None:
        problem: list[str | None] = [None]
        if is_main_process():
            try:
                self._lock(Path(runner.work_dir))
                remove_partial_files(Path(runner.work_dir))
            except (UserError, OSError) as error:
                problem = [str(error)]
        broadcast_object_list(problem)  # without it, the other processes would wait for the first one
        if problem[0]:
            raise UserError(problem[0])
        enable_atomic_writing(runner.work_dir)
        barrier()  # all processes have read the checkpoint that they start from
        if is_main_process():
            for directory in _directories(runner):
                _keep(_other_checkpoints(runner, directory), directory / f'previous_{runner.timestamp}')

    def after_train(self, runner: Runner) -> None:
        if is_main_process():
            self.holder.unlink(missing_ok=True)
            self.lock.release()

    def _lock(self, directory: Path) -> None:
        """Take the lock of a work directory, which the kernel releases when the process ends in whatever way.

        Raises:
            UserError: Another training has it.
        """
        # Without the fallback to a file that nobody removes when a machine fails.
        self.lock, self.holder = FileLock(directory / '.lock', fallback_to_soft=False), directory / '.lock.json'
        try:
            holder = json.loads(self.holder.read_text())
        except (OSError, ValueError):
            holder = {}
        try:
            self.lock.acquire(timeout=_WORKERS_END if _has_ended(holder) else 0)
        except Timeout as error:
            raise UserError(
                f'another training runs in {directory}: process {holder.get("pid")} on {holder.get("machine")}, since '
                f'{holder.get("since")}; wait for it, stop it, or choose another --work-dir'
            ) from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
                raise
            print_log(
                f'{directory}: its file system has no locks; do not train in it twice at the same time', 'current'
            )
        since = time.strftime('%Y-%m-%d %H:%M:%S')
        write_atomically(
            self.holder, json.dumps(dict(machine=socket.gethostname(), pid=os.getpid(), since=since)).encode()
        )


def _has_ended(holder: dict[str, Any]) -> bool:
    """Return whether the process that had a lock on this machine does not exist any more."""
    if holder.get('machine') != socket.gethostname() or not isinstance(holder.get('pid'), int):
        return False
    try:
        os.kill(holder['pid'], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # of another user
        pass
    return False


def _directories(runner: Runner) -> set[Path]:
    """Return the work directory, and that of a CheckpointHook with an ``out_dir``, before it has its final value."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.out_dir]
    return {Path(runner.work_dir), *(Path(hook.out_dir, Path(runner.work_dir).name) for hook in hooks)}


def _other_checkpoints(runner: Runner, directory: Path) -> list[Path]:
    """Return the checkpoints that a training does not continue from: all of an earlier one, or those after its own."""
    file = runner.cfg.get('load_from')
    if runner.iter and not file:  # mmengine resumes from what last_checkpoint names
        return []
    resumable = resumable_checkpoints(runner.work_dir)
    if runner.iter and Path(file).resolve() in (own := [one.resolve() for one in resumable]):
        newer = resumable[: own.index(Path(file).resolve())]
        return [one for one in newer if one.parent == directory]
    others = sorted(directory.glob('*.pth'))
    last = directory / 'last_checkpoint'
    return [*others, last] if others and last.exists() else others


def _keep(checkpoints: list[Path], previous: Path) -> None:
    """Move checkpoints to a subdirectory, so that a training does not overwrite them or resume from them."""
    if not checkpoints:
        return
    previous.mkdir(exist_ok=True)
    for file in checkpoints:
        file.rename(previous / file.name)
    print_log(f'checkpoints of another training in {previous.parent} were moved to {previous}', 'current')
