"""Writing of checkpoint files so that a kill or a full disk at any moment leaves whole files behind.

mmengine writes a checkpoint in place, deletes the outdated one before, and empties ``last_checkpoint`` to write it
again. A process that is killed in between leaves a truncated file, and with ``max_keep_ckpts=1`` nothing else.

:func:`enable_safe_saving` changes the order, also in the tools of mmdet, mmseg and mmpretrain: write a temporary file,
flush it to the disk, rename it, write ``last_checkpoint`` in the same manner, and only then delete what is outdated.
"""

import contextlib
import errno
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

PARTIAL = '.part'
INTERRUPTED = 'interrupted_'  # begins the name of a checkpoint between two regular ones


def enable_safe_saving() -> None:
    """Make mmengine save checkpoints atomically in this process. Importing ``deformable_vit`` calls it.

    It registers :class:`AtomicBackend` as mmengine's backend for local files, and :class:`AtomicCheckpointHook` under
    the name ``CheckpointHook``. Calling it again has no effect.
    """
    register_backend('local', AtomicBackend, force=True, prefixes='')
    HOOKS.register_module(name='CheckpointHook', module=AtomicCheckpointHook, force=True)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file that either has its whole new content or, after an error or a kill, its old one.

    Raises:
        OSError: No space, no permission, and the like; nothing is left of the new content.
    """
    if path.exists() and not path.is_file():  # a device or a pipe, which cannot be renamed over
        path.write_bytes(content)
        return
    if path.is_symlink():  # a link stays a link
        path = path.resolve()
    partial = path.with_name(f'.{path.name}.{os.getpid()}{PARTIAL}')
    try:
        with partial.open('wb') as file:
            file.write(content)
            file.flush()
            _sync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    with contextlib.suppress(OSError):  # some file systems cannot open or synchronize directories
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # what file systems without it answer
            raise


def remove_partial_files(directory: Path) -> list[Path]:
    """Delete what killed processes left of unfinished writes; only while no other process writes there."""
    partial = sorted(directory.glob(f'.*{PARTIAL}'))
    for file in partial:
        file.unlink(missing_ok=True)
    return partial


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, with atomic writing."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


class _RemoveLater:
    """A file backend that deletes files when it is told to, not when it is asked to."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.outdated.append(path)

    # mmengine calls this one for a directory, which DeepSpeed writes and this hook does not.
    def rmtree(self, path: str) -> None:
        self.outdated.append(path)


class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` that deletes outdated checkpoints after it has written the new one.

    Before it saves, it calls ``gather_for_checkpoint`` of all hooks in all processes; mmengine calls
    ``before_save_checkpoint`` in the main process only.
    """

    file_backend: Any
    keep_ckpt_ids: deque[int]
    saved_iter: int | None = None  # complete iterations of the last checkpoint

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        """Save the checkpoint of an epoch or iteration, then ``last_checkpoint``, then delete the outdated one."""
        outdated = None
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.save(runner, self.filename_tmpl.format(step), meta)
        if self.max_keep_ckpts > 0 and is_main_process():
            names = [outdated] if outdated else []
            if isinstance(self.file_backend, LocalBackend):
                names += [file.name for file in Path(self.out_dir).glob(f'{INTERRUPTED}*.pth')]
            for name in names:
                self._remove(self.file_backend.join_path(self.out_dir, name))

    def save(self, runner: Any, name: str, meta: dict[str, Any]) -> str:
        """Write a checkpoint and ``last_checkpoint``; delete nothing.

        All processes call it.

        Args:
            runner: The runner of the training.
            name: File name.
            meta: ``epoch`` and ``iter``, both as numbers that are complete.

        Returns:
            The path of the checkpoint.
        """
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.call_hook('gather_for_checkpoint')
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            # In the work directory, where --resume looks, even if checkpoints go elsewhere.
            write_atomically(Path(runner.work_dir, 'last_checkpoint'), str(self.last_ckpt).encode())
        self.saved_iter = meta['iter']
        return str(self.last_ckpt)

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, Any]) -> None:
        with self._removing_later():
            super()._save_best_checkpoint(runner, metrics)

    @contextlib.contextmanager
    def _removing_later(self) -> Iterator[None]:
        """Delete after the block, and only if it ends well, the files that mmengine would delete within it."""
        backend, self.file_backend = self.file_backend, _RemoveLater(self.file_backend)
        try:
            yield
            outdated = self.file_backend.outdated
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in outdated:
            if path not in best:  # a second evaluation of one epoch writes the same name
                self._remove(path)

    def _remove(self, path: str) -> None:
        # Own checkpoints are files in out_dir. A path from the message hub of a resumed file may be anything.
        own = os.path.dirname(path) == str(self.out_dir).rstrip(os.sep) and path.endswith('.pth')
        if own and self.file_backend.isfile(path):
            self.file_backend.remove(path)
