"""Protect the checkpoints in a work directory from a kill, a full disk, a second training and the next one."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
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
    - The checkpoints of an earlier training move to ``previous_TIME``, unless this one resumes.
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
        if is_main_process() and not _resumes_here(runner):
            _keep_previous_run(Path(runner.work_dir), runner.timestamp)

    def after_train(self, runner: Runner) -> None:
        if is_main_process():
            self.holder.unlink(missing_ok=True)
            self.lock.release()

    def _lock(self, directory: Path) -> None:
        """Take the lock of a work directory, which the kernel releases when the process ends in whatever way.

        Raises:
            UserError: Another training has it.
        """
        self.lock, self.holder = FileLock(directory / '.lock'), directory / '.lock.json'
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
        except NotImplementedError:
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


def _resumes_here(runner: Runner) -> bool:
    """Return whether a training continues that of its work directory, and not one of another directory or none."""
    file, last = runner.cfg.get('load_from'), Path(runner.work_dir, 'last_checkpoint')
    if not runner.iter or not file:  # mmengine resumes from what last_checkpoint names
        return runner.iter > 0
    here = Path(file).resolve().parent == Path(runner.work_dir).resolve()
    return here or (last.exists() and last.read_text().strip() == str(file))  # as with an `out_dir` elsewhere


def _keep_previous_run(directory: Path, timestamp: str) -> None:
    """Move the checkpoints of an earlier training to a subdirectory, so that a new one does not overwrite them."""
    if not (checkpoints := sorted(directory.glob('*.pth'))):
        return
    previous = directory / f'previous_{timestamp}'
    previous.mkdir()
    for file in (*checkpoints, directory / 'last_checkpoint'):
        if file.exists():
            file.rename(previous / file.name)
    print_log(f'the checkpoints of an earlier training in {directory} were moved to {previous}', 'current')
