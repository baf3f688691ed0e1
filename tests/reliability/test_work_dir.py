"""The work directory: taken, read-only, gone, full, or with damaged checkpoints."""

import errno
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from toy_training import assert_equal, final_weights, start, toy_config, train, wait

from deformable_vit.engine import UserError, latest_checkpoint
from deformable_vit.engine.lock import WorkDirLock, network_file_system

as_root = pytest.mark.skipif(os.geteuid() != 0, reason='mounts a file system')


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def locked_by_child(work_dir: Path) -> int:
    """Start a process that takes the lock and waits for a signal."""
    read, write = os.pipe()
    if not (pid := os.fork()):
        WorkDirLock(work_dir).acquire()
        os.write(write, b'.')
        signal.pause()
    os.read(read, 1)
    return pid


def test_second_training_gets_one_line_that_names_the_first(tmp_path: Path) -> None:
    first = locked_by_child(tmp_path)
    try:
        expected = f'another training runs in {tmp_path}: process {first} on {socket.gethostname()!r}'
        with pytest.raises(UserError, match=expected):
            WorkDirLock(tmp_path).acquire()
    finally:
        os.kill(first, signal.SIGKILL)
        wait(first)


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    first = locked_by_child(tmp_path)
    os.kill(first, signal.SIGKILL)
    wait(first)
    lock = WorkDirLock(tmp_path)
    lock.acquire()
    assert f'process {first} on {socket.gethostname()!r}' in (tmp_path / '.lock').read_text() + capfd.readouterr().out
    lock.release()
    assert (tmp_path / '.lock').read_text() == ''
    lock.acquire()
    assert 'taken over' not in capfd.readouterr().out
    lock.release()


def test_without_locks_it_says_that_it_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Lustre without flock, for example; and NFS whose last holder was on another machine."""
    (tmp_path / '.lock').write_text('{"machine": "node7", "pid": 12, "since": "yesterday"}')
    with monkeypatch.context() as patch:
        patch.setattr('deformable_vit.engine.lock.network_file_system', lambda path: 'nfs4')
        lock = WorkDirLock(tmp_path)
        lock.acquire()
        lock.release()
    said = capfd.readouterr()
    assert 'cannot tell whether another training runs' in said.out + said.err
    assert "process 12 on 'node7'" in said.out + said.err

    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr('fcntl.lockf', no_locks)
    WorkDirLock(tmp_path).acquire()
    said = capfd.readouterr()
    assert 'cannot tell whether another training runs' in said.out + said.err
    assert 'No locks available' in said.out + said.err


def test_network_file_systems_are_recognized(tmp_path: Path) -> None:
    mounts = tmp_path / 'mounts'
    mounts.write_text(
        f'/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path}/a\\040b nfs4 rw 0 0\nh {tmp_path}/c fuse.sshfs rw 0 0\n'
    )
    found = [network_file_system(tmp_path / name, str(mounts)) for name in ('a b/run', 'c', 'd')]
    assert found == ['nfs4', 'fuse.sshfs', None]


def save(file: Path, **changes: object) -> None:
    content = dict(meta=dict(epoch=1, iter=6), state_dict=dict(w=torch.ones(1000)), optimizer=dict(state={}))
    torch.save({key: value for key, value in (content | changes).items() if value}, file)


def test_resume_takes_the_newest_whole_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    assert latest_checkpoint(str(tmp_path)) is None
    for epoch in range(1, 8):
        save(tmp_path / f'epoch_{epoch}.pth')
    save(tmp_path / 'epoch_5.pth', optimizer=None)
    save(tmp_path / 'interrupted_epoch_3_iter_20.pth')
    save(tmp_path / 'best_acc_epoch_9.pth')
    content = bytearray((tmp_path / 'epoch_6.pth').read_bytes())
    content[content.index(torch.ones(10).numpy().tobytes()) + 5] ^= 1  # a bit of a weight
    (tmp_path / 'epoch_6.pth').write_bytes(content)
    os.truncate(tmp_path / 'epoch_7.pth', 1000)
    for last in ('', str(tmp_path / 'epoch_7.pth'), '/elsewhere/epoch_4.pth', 'epoch_2.pth\0'):
        (tmp_path / 'last_checkpoint').write_text(last)
        assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_4.pth')
        said = capfd.readouterr()
        for epoch in (5, 6, 7):
            assert f'--resume: checkpoint {tmp_path}/epoch_{epoch}.pth' in said.out + said.err
    (tmp_path / 'epoch_4.pth').unlink()
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'interrupted_epoch_3_iter_20.pth')


@pytest.mark.parametrize('last', ['', '/elsewhere/epoch_2.pth'])
def test_resume_never_starts_from_the_beginning_where_a_training_was(tmp_path: Path, last: str) -> None:
    (tmp_path / 'last_checkpoint').write_text(last)
    with pytest.raises(UserError, match='last_checkpoint is empty or names a missing file; pass --resume FILE'):
        latest_checkpoint(str(tmp_path))
    (tmp_path / 'epoch_1.pth').touch()
    with pytest.raises(UserError, match='no whole checkpoint in .*epoch_1.pth'):
        latest_checkpoint(str(tmp_path))


def test_checkpoint_deleted_after_it_was_found_is_one_line(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    config.load_from, config.resume = str(tmp_path / 'epoch_1.pth'), True
    assert wait(start(partial(train, config, resume=False), tmp_path / 'log')) == 2
    assert (tmp_path / 'log').read_text().splitlines() == [
        f'train.py: error: checkpoint {tmp_path}/epoch_1.pth does not exist'
    ]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 2 MB, in another mount namespace, and return its path."""
    mount = f'mount -t tmpfs -o size=2m tmpfs {tmp_path}/disk && exec sleep 600'
    (tmp_path / 'disk').mkdir()
    helper = os.spawnlp(os.P_NOWAIT, 'unshare', 'unshare', '-m', '--propagation', 'private', 'sh', '-c', mount)
    try:
        path = Path(f'/proc/{helper}/root{tmp_path}/disk')
        deadline = time.monotonic() + 60
        while not (path.is_dir() and shutil.disk_usage(path).total < 3e6):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield path
    finally:
        os.kill(helper, signal.SIGKILL)
        wait(helper)


def fill(disk: Path, after: Path, free: int) -> None:
    """Leave so many bytes of a disk when a file appears."""
    wait_for(after)
    (disk / 'filler').write_bytes(bytes(max(shutil.disk_usage(disk).free - free, 0)))


@pytest.mark.slow
@as_root
def test_full_disk_is_one_line_and_the_checkpoint_before_survives(disk: Path, tmp_path: Path) -> None:
    """On a file system that becomes full in the second epoch, and of a known size."""
    log = tmp_path / 'log'
    filling = start(partial(fill, disk, disk / 'run' / 'epoch_1.pth', 8192), tmp_path / 'filling')
    assert wait(start(partial(train, toy_config(disk / 'run', model=dict(pause=0.05))), log)) == 2
    assert wait(filling) == 0
    assert 'Traceback' not in log.read_text()
    last = log.read_text().splitlines()[-1]
    assert f'work directory {disk}/run: No space left on device; make it writable' in last
    assert f'the last checkpoint is {disk}/run/epoch_1.pth; go on with --resume' in last
    assert latest_checkpoint(str(disk / 'run')) == str(disk / 'run' / 'epoch_1.pth')

    # The files of the log fit and the checkpoints do not: one line before the training.
    os.truncate(disk / 'filler', (disk / 'filler').stat().st_size - 200_000)
    assert wait(start(partial(train, toy_config(disk / 'other')), log)) == 2
    assert 'free, and the checkpoints of this training need about' in log.read_text().splitlines()[-1]


@pytest.mark.slow
@as_root
@pytest.mark.campaign('moments at which the disk is full', short=1, long=10)
def test_training_goes_on_after_the_disk_was_full(
    unbroken: dict[bool, dict[str, torch.Tensor]], disk: Path, tmp_path: Path, attempt: int
) -> None:
    """With a random part of a checkpoint's size left after a random epoch: no bit of the training changes."""
    draw = random.Random(attempt)
    run, log = disk / 'run', tmp_path / 'log'
    free = draw.randint(0, 40_000)
    filling = start(partial(fill, disk, run / f'epoch_{draw.randint(1, 3)}.pth', free), tmp_path / 'filling')
    status = wait(start(partial(train, toy_config(run, model=dict(pause=0.05))), log))
    assert wait(filling) == 0
    assert 'Traceback' not in log.read_text()
    if free < 10_000:  # a checkpoint has more
        assert status == 2
    if status:
        assert f'work directory {run}: No space left on device; make it writable' in log.read_text().splitlines()[-1]
        assert latest_checkpoint(str(run))
    (disk / 'filler').unlink()
    assert wait(start(partial(train, toy_config(run)), log)) == 0
    assert_equal(final_weights(run), unbroken[True])


@pytest.mark.slow
def test_work_directory_that_vanishes_is_one_line(tmp_path: Path) -> None:
    def remove() -> None:
        wait_for(tmp_path / 'run' / 'epoch_1.pth')
        (tmp_path / 'run').rename(tmp_path / 'moved')

    removing = start(remove, tmp_path / 'removing')
    assert wait(start(partial(train, toy_config(tmp_path / 'run', model=dict(pause=0.05))), tmp_path / 'log')) == 2
    assert wait(removing) == 0
    assert 'Traceback' not in (tmp_path / 'log').read_text()
    assert '(the directory is gone)' in (tmp_path / 'log').read_text().splitlines()[-1]


def test_work_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    for work_dir in (tmp_path / 'file' / 'run', Path('/proc/run')):
        log = tmp_path / 'log'
        assert wait(start(partial(train, toy_config(work_dir)), log)) == 2
        last = log.read_text().splitlines()[-1]
        assert last.startswith(f'train.py: error: work directory {work_dir}: ')
        assert last.endswith('choose another --work-dir')
    assert 'Traceback' not in log.read_text()
