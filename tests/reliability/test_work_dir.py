"""The work directory: taken, read-only, gone, full, or with damaged checkpoints."""

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

from deformable_vit.checkpoints import write_atomically
from deformable_vit.engine import resumable_checkpoints

as_root = pytest.mark.skipif(os.geteuid() != 0, reason='mounts a file system')


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_second_training_gets_one_line_and_a_dead_one_is_not_in_the_way(unbroken, tmp_path: Path) -> None:
    run, log = tmp_path / 'run', tmp_path / 'log'
    first = start(partial(train, toy_config(run, workers=1, keep=4, model=dict(pause=1))), tmp_path / 'first')
    wait_for(run / 'epoch_1.pth')
    before = (run / 'epoch_1.pth').read_bytes()
    assert wait(start(partial(train, toy_config(run), resume=False), log)) == 2
    line = log.read_text().splitlines()[-1]
    assert f'train.py: error: another training runs in {run}: process {first} on {socket.gethostname()}' in line
    os.kill(first, signal.SIGKILL)
    assert wait(first) == -signal.SIGKILL
    assert (run / 'epoch_1.pth').read_bytes() == before
    assert wait(start(partial(train, toy_config(run)), log)) == 0
    assert_equal(final_weights(run), unbroken[True])


def save(file: Path, **changes: object) -> None:
    content = dict(meta=dict(epoch=1, iter=6), state_dict=dict(w=torch.ones(1000)), optimizer=dict(state={}))
    torch.save(content | changes, file)


def test_checkpoints_to_resume_from_are_the_newest_first(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    assert resumable_checkpoints(tmp_path) == []
    names = ['epoch_4', 'interrupted_epoch_3_iter_20', 'epoch_3', 'epoch_2']
    for name in [*names, 'epoch_5', 'best_acc_epoch_9', 'pretrained']:
        save(tmp_path / f'{name}.pth')
    os.truncate(tmp_path / 'epoch_5.pth', 1000)
    for last in ('', str(tmp_path / 'epoch_5.pth'), '/elsewhere/epoch_4.pth', 'epoch_2.pth\0'):
        (tmp_path / 'last_checkpoint').write_text(last)
        assert [file.stem for file in resumable_checkpoints(tmp_path)] == names
        assert f'--resume: checkpoint {tmp_path}/epoch_5.pth is truncated' in ''.join(capfd.readouterr())
    # A template without numbers, in a directory that was moved: last_checkpoint alone names the file.
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/pretrained.pth')
    assert resumable_checkpoints(tmp_path)[-1] == tmp_path / 'pretrained.pth'


@pytest.mark.slow
def test_resume_takes_the_newest_whole_checkpoint(unbroken, tmp_path: Path) -> None:
    run, log = tmp_path / 'run', tmp_path / 'log'
    model = dict(stop_at=(20, signal.SIGTERM))
    assert wait(start(partial(train, toy_config(run, keep=-1, model=model)), log)) == 143
    damaged = run / 'interrupted_epoch_3_iter_20.pth'
    content = bytearray(damaged.read_bytes())
    content[
        content.index(torch.load(damaged, weights_only=False)['state_dict']['layers.0.weight'].numpy().tobytes())
    ] ^= 1
    damaged.write_bytes(content)
    (run / 'epoch_4.pth').write_bytes((run / 'epoch_3.pth').read_bytes()[:-100])
    assert wait(start(partial(train, toy_config(run, keep=-1)), log)) == 0
    text = log.read_text()
    assert f'--resume: checkpoint {run}/epoch_4.pth is truncated' in text
    assert f'--resume: checkpoint {damaged} is damaged: the checksum of' in text
    assert 'resumed epoch: 3, iter: 18' in text
    assert_equal(final_weights(run), unbroken[True])


@pytest.mark.slow
def test_errors_of_resume_and_of_the_work_directory_are_one_line(tmp_path: Path) -> None:
    log = tmp_path / 'log'

    def line(work_dir: Path, load_from: str | None = None) -> str:
        assert wait(start(partial(train, toy_config(work_dir, load_from=load_from)), log)) == 2
        assert 'Traceback' not in log.read_text()
        return log.read_text().splitlines()[-1]

    # Never from the beginning where a training was.
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    assert f'--resume: no whole checkpoint in {tmp_path}; pass --resume FILE, or train without' in line(tmp_path)
    gone = str(tmp_path / 'gone.pth')
    assert line(tmp_path, gone).endswith(f'train.py: error: checkpoint {gone} does not exist')
    (tmp_path / 'file').touch()
    for work_dir in (tmp_path / 'file' / 'run', Path('/proc/run')):
        shown = line(work_dir)
        assert shown.startswith(f'train.py: error: work directory {work_dir}: ')
        assert shown.endswith('choose another --work-dir')


@pytest.mark.slow
def test_earlier_checkpoints_are_kept(tmp_path: Path) -> None:
    run, log = tmp_path / 'run', tmp_path / 'log'
    assert wait(start(partial(train, toy_config(run)), log)) == 0
    first = (run / 'epoch_4.pth').read_bytes()
    again = toy_config(run, load_from=str(run / 'epoch_4.pth'))  # it is read before it is moved
    assert wait(start(partial(train, again, resume=False), log)) == 0, log.read_text()[-2000:]
    (kept,) = run.glob('previous_*/epoch_4.pth')
    assert kept.read_bytes() == first != (run / 'epoch_4.pth').read_bytes()


@pytest.mark.slow
def test_resuming_elsewhere_keeps_the_checkpoints_there(tmp_path: Path) -> None:
    """The resumed file says which of its own to remove, by names that another training may have used, too."""
    for run in ('first', 'second'):
        assert wait(start(partial(train, toy_config(tmp_path / run, keep=2)), tmp_path / 'log')) == 0
    kept = {file.name: file.read_bytes() for file in (tmp_path / 'second').glob('*.pth')}
    config = toy_config(tmp_path / 'second', keep=1, load_from=str(tmp_path / 'first' / 'epoch_3.pth'))
    assert wait(start(partial(train, config), tmp_path / 'log')) == 0, (tmp_path / 'log').read_text()[-2000:]
    (previous,) = (tmp_path / 'second').glob('previous_*')
    assert {file.name: file.read_bytes() for file in previous.glob('*.pth')} == kept


@pytest.mark.slow
def test_a_training_that_continues_from_an_older_checkpoint_stays_on_its_branch(tmp_path: Path) -> None:
    run, log = tmp_path / 'run', tmp_path / 'log'
    assert wait(start(partial(train, toy_config(run, keep=-1)), log)) == 0
    model = dict(stop_at=(2, signal.SIGTERM))
    config = toy_config(run, keep=-1, model=model, load_from=str(run / 'epoch_2.pth'))
    assert wait(start(partial(train, config), log)) == 143, log.read_text()[-2000:]
    names = ['interrupted_epoch_2_iter_14', 'epoch_2', 'epoch_1']
    assert [file.stem for file in resumable_checkpoints(run)] == names
    assert {file.name for file in run.glob('previous_*/*')} == {'epoch_3.pth', 'epoch_4.pth'}


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
    """Leave so many bytes of a disk when a file appears, also after the outdated checkpoint is removed."""
    wait_for(after)
    with (disk / 'filler').open('wb', buffering=0) as file:
        for _ in range(10):
            file.write(bytes(max(shutil.disk_usage(disk).free - free, 0)))
            time.sleep(0.03)


@pytest.mark.slow
@as_root
@pytest.mark.campaign('moments at which the disk is full', short=1, long=10)
def test_training_goes_on_after_the_disk_was_full(
    unbroken: dict[bool, dict[str, torch.Tensor]], disk: Path, tmp_path: Path, attempt: int
) -> None:
    """With a random part of a checkpoint's size left after a random epoch: no bit of the training changes."""
    draw = random.Random(attempt)
    run, log = disk / 'run', tmp_path / 'log'
    free = draw.randint(0, 9_000)  # a checkpoint has more
    filling = start(partial(fill, disk, run / f'epoch_{draw.randint(1, 2)}.pth', free), tmp_path / 'filling')
    assert wait(start(partial(train, toy_config(run, model=dict(pause=0.1))), log)) == 2
    assert wait(filling) == 0
    assert (
        f'train.py: error: work directory {run}: No space left on device; earlier' in log.read_text().splitlines()[-1]
    )
    assert resumable_checkpoints(run)
    (disk / 'filler').unlink()
    assert wait(start(partial(train, toy_config(run)), log)) == 0
    assert_equal(final_weights(run), unbroken[True])


@pytest.mark.slow
def test_work_directory_that_vanishes_is_one_line(tmp_path: Path) -> None:
    def remove() -> None:
        wait_for(tmp_path / 'run' / 'epoch_1.pth')
        (tmp_path / 'run').rename(tmp_path / 'moved')

    removing = start(remove, tmp_path / 'removing')
    assert wait(start(partial(train, toy_config(tmp_path / 'run', model=dict(pause=0.1))), tmp_path / 'log')) == 2
    assert wait(removing) == 0
    assert 'Traceback' not in (tmp_path / 'log').read_text()
    assert '(the directory is gone)' in (tmp_path / 'log').read_text().splitlines()[-1]


def test_last_checkpoint_is_corrected_for_the_tools_of_mmdet(tmp_path: Path) -> None:
    """mmengine resumes from the file that it names, which a crash of the machine can leave empty."""
    from types import SimpleNamespace

    from deformable_vit.engine import WorkDirHook

    save(tmp_path / 'epoch_3.pth')
    write_atomically(tmp_path / 'last_checkpoint', b'')
    runner = SimpleNamespace(cfg=dict(resume=True, load_from=None), work_dir=str(tmp_path))
    WorkDirHook().before_run(runner)
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')
