"""One training per work directory: a second one would overwrite the checkpoints of the first."""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from .cli import UserError

LOCK = '.lock'
# Types of /proc/mounts whose locks another machine may not see, depending on the server and the mount's options.
_NETWORK = (
    'nfs',
    'cifs',
    'smb',
    'lustre',
    'gpfs',
    'beegfs',
    'ceph',
    'glusterfs',
    'fuse',
    '9p',
    'afs',
    'pvfs',
    'wekafs',
)


class WorkDirLock:
    """A lock on a work directory, which the kernel releases when the process ends in whatever way.

    The file ``.lock`` stays and names the last holder; a lock of a dead process is therefore never in the way. It is a
    POSIX record lock: worker processes do not inherit it, and NFS passes it on to its server.
    """

    def __init__(self, work_dir: str | Path) -> None:
        self.path = Path(work_dir) / LOCK
        self.descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; keep it until :meth:`release` or the end of the process.

        Raises:
            UserError: Another training has it; the message names its machine and process.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read(descriptor)
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(
                    f'another training runs in {self.path.parent}: {_named(holder)}; wait for it, stop it, or choose '
                    'another --work-dir'
                ) from error
            _cannot_tell(self.path.parent, f'its file system has no locks ({error.strerror})', holder)
            return
        holder = _read(descriptor)
        if holder and holder.get('machine') != socket.gethostname() and (kind := network_file_system(self.path)):
            _cannot_tell(self.path.parent, f'it is on {kind}, whose locks may not reach other machines', holder)
        elif holder:
            print_log(f'{self.path.parent}: {_named(holder)} ended without releasing its lock; taken over', 'current')
        content = dict(machine=socket.gethostname(), pid=os.getpid(), since=time.strftime('%Y-%m-%d %H:%M:%S'))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(content).encode(), 0)
        self.descriptor = descriptor

    def release(self) -> None:
        """Release the lock; without one, do nothing."""
        if self.descriptor is not None:
            os.ftruncate(self.descriptor, 0)
            os.close(self.descriptor)
            self.descriptor = None


def _read(descriptor: int) -> dict[str, Any]:
    """Return machine, pid and time of a lock file, or an empty dict if it is empty or not one."""
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _named(holder: dict[str, Any]) -> str:
    if not holder:
        return 'an unknown process'
    return f'process {holder.get("pid")!r} on {holder.get("machine")!r}, since {holder.get("since")!r}'


def _cannot_tell(directory: Path, reason: str, holder: dict[str, Any]) -> None:
    last = f'; the last one was {_named(holder)}' if holder else ''
    print_log(
        f'cannot tell whether another training runs in {directory}: {reason}{last}. Two of them overwrite each other',
        'current',
        logging.WARNING,
    )


def network_file_system(path: Path, mounts: str = '/proc/mounts') -> str | None:
    """Return the type of the file system of a path if other machines may mount it too, else ``None``."""
    if not Path(mounts).exists():  # not Linux
        return 'a file system of unknown type'
    resolved, best, kind = path.resolve(), Path(), ''
    for line in Path(mounts).read_text().splitlines():
        fields = line.split()
        mount = Path(fields[1].replace('\\040', ' '))
        if resolved.is_relative_to(mount) and len(mount.parts) >= len(best.parts):  # a later mount hides an earlier one
            best, kind = mount, fields[2]
    return kind if kind.startswith(_NETWORK) else None
