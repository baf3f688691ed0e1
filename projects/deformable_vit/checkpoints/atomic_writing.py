"""Writing of files so that a kill or a full disk at any moment leaves whole checkpoints behind.

mmengine writes a checkpoint in place, and removes the outdated one before: a process that is killed in between leaves a
truncated file, and with ``max_keep_ckpts=1`` nothing else. Both go through mmengine's backend for local files, which
:func:`enable_atomic_writing` replaces by :class:`AtomicBackend`.
"""

import contextlib
import errno
import logging
import os
import shutil
from pathlib import Path
from typing import ClassVar

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from ..errors import shown

_PARTIAL = '.part'


def enable_atomic_writing(root: Path | str) -> None:
    """Make mmengine write files atomically in this process, and remove files below ``root`` only."""
    AtomicBackend.root = Path(root).resolve()
    AtomicBackend.outdated.clear()
    register_backend('local', AtomicBackend, force=True, prefixes='')


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
    partial = path.with_name(f'.{path.name}.{os.getpid()}{_PARTIAL}')
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
    partial = sorted(directory.glob(f'.*{_PARTIAL}'))
    for file in partial:
        file.unlink(missing_ok=True)
    return partial


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, with atomic writing; a file is removed after its successor is written.

    A checkpoint names the files that a training removes after it resumes, ``keep_ckpt_ids`` and ``best_ckpt``; those
    outside of :attr:`root` stay. mmengine makes an instance for each call, so the state is that of the class.
    """

    root: ClassVar[Path | None] = None  # the work directory; None for any
    written: ClassVar[set[str]] = set()  # by this process, such as in an `out_dir` elsewhere
    outdated: ClassVar[list[str]] = []  # to remove

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, obj)
        self.written.add(os.path.abspath(path))
        self._remove_before(path)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: str | Path) -> None:
        if not self.isfile(filepath):
            super().remove(filepath)  # raises
        self._remove_later(filepath)

    def rmtree(self, dir_path: str | Path) -> None:
        # DeepSpeed writes its checkpoints, directories, without a backend: the next one that is outdated succeeds them.
        self._remove_before(Path(dir_path))
        self._remove_later(dir_path)

    def _remove_later(self, path: str | Path) -> None:
        name = os.path.abspath(path)
        if self.root is None or self.root in Path(path).resolve().parents or name in self.written:
            self.outdated.append(name)
        else:
            print_log(f'{shown(name)} stays: it is outside of {shown(str(self.root))}', 'current', logging.WARNING)

    def _remove_before(self, successor: Path) -> None:
        """Remove what is outdated in the directory of a whole checkpoint, and has the same suffix."""
        directory, name = os.path.split(os.path.abspath(successor))
        last = (self.root or successor.parent) / 'last_checkpoint'
        for path in map(Path, [*self.outdated]):
            if str(path.parent) != directory or path.suffix != successor.suffix:
                continue
            self.outdated.remove(str(path))
            if path.name == name:
                continue
            # mmengine writes its own later: a kill before that would leave the name of a file that is gone.
            if last.is_file() and os.path.abspath(last.read_text().strip()) == str(path):
                write_atomically(last, str(successor).encode())
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
