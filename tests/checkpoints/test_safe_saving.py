"""Checkpoints are whole at any moment: of a kill, of a full disk, of a deletion."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS, Registry

from deformable_vit.checkpoints import AtomicCheckpointHook, remove_partial_files, write_atomically


class Killed(BaseException):
    """Stand in for SIGKILL."""


class FakeRunner(SimpleNamespace):
    """Save a few bytes; note the files that are there before and after each write."""

    def __init__(self, work_dir: Path) -> None:
        super().__init__(work_dir=str(work_dir), epoch=0, iter=0, message_hub=MessageHub(f'hub of {work_dir}'))
        self.logger = SimpleNamespace(info=print)
        self.content = b'checkpoint'
        self.present: list[list[str]] = []

    def call_hook(self, name: str) -> None:
        assert name == 'gather_for_checkpoint'

    def save_checkpoint(
        self, out_dir: str, name: str = '', *args: object, filename: str = '', **kwargs: object
    ) -> None:
        get_file_backend(out_dir).put(self.content, os.path.join(out_dir, name or filename))
        self.present.append(files(Path(out_dir)))


def files(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def hook_of(runner: FakeRunner, **arguments: object) -> AtomicCheckpointHook:
    hook = HOOKS.build(dict(type='CheckpointHook', interval=1, **arguments))
    hook.before_train(runner)
    return hook


def test_checkpoint_hook_of_all_configs_is_the_atomic_one() -> None:
    libraries = Registry('hook', parent=HOOKS, scope='a_library')
    assert libraries.get('CheckpointHook') is HOOKS.get('CheckpointHook') is AtomicCheckpointHook
    assert issubclass(AtomicCheckpointHook, CheckpointHook)


@pytest.mark.parametrize('failing', ['fsync', 'replace'])
def test_unfinished_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    file = tmp_path / 'last_checkpoint'
    write_atomically(file, b'old')

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match='No space'):
        get_file_backend(str(file)).put(b'new', str(file))
    assert file.read_bytes() == b'old'
    assert files(tmp_path) == ['last_checkpoint']


def test_killed_write_leaves_the_old_file_and_a_partial_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / 'epoch_1.pth'
    write_atomically(file, b'old')
    pid = os.fork()
    if not pid:
        os.replace = lambda *args: os._exit(9)
        write_atomically(file, b'new')
    os.waitpid(pid, 0)
    assert file.read_bytes() == b'old'
    assert files(tmp_path) == [f'.epoch_1.pth.{pid}.part', 'epoch_1.pth']
    assert [p.name for p in remove_partial_files(tmp_path)] == [f'.epoch_1.pth.{pid}.part']
    assert files(tmp_path) == ['epoch_1.pth']


def test_links_and_devices_are_written_to(tmp_path: Path) -> None:
    (tmp_path / 'target').write_bytes(b'old')
    (tmp_path / 'link').symlink_to('target')
    write_atomically(tmp_path / 'link', b'new')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'target').read_bytes() == b'new'
    write_atomically(Path(os.devnull), b'new')
    assert Path(os.devnull).is_char_device()


def test_outdated_checkpoint_is_deleted_when_the_new_one_is_whole(tmp_path: Path) -> None:
    runner = FakeRunner(tmp_path)
    hook = hook_of(runner, max_keep_ckpts=1)
    hook.after_train_epoch(runner)
    (tmp_path / 'interrupted_epoch_0_iter_5.pth').touch()
    runner.epoch = 1
    hook.after_train_epoch(runner)
    assert runner.present[1] == ['epoch_1.pth', 'epoch_2.pth', 'interrupted_epoch_0_iter_5.pth', 'last_checkpoint']
    assert files(tmp_path) == ['epoch_2.pth', 'last_checkpoint']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')


@pytest.mark.parametrize('failing', ['fsync', 'replace'])
def test_failed_save_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    runner = FakeRunner(tmp_path)
    hook = hook_of(runner, max_keep_ckpts=1)
    hook.after_train_epoch(runner)
    runner.epoch = 1

    def kill(*args: object) -> None:
        raise Killed

    monkeypatch.setattr(os, failing, kill)
    with pytest.raises(Killed):
        hook.after_train_epoch(runner)
    assert (tmp_path / 'epoch_1.pth').read_bytes() == b'checkpoint'
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')


def test_best_checkpoint_is_replaced_in_the_same_order(tmp_path: Path) -> None:
    runner = FakeRunner(tmp_path)
    hook = hook_of(runner, save_best='acc')
    for epoch, value in ((1, 0.5), (2, 0.6), (2, 0.7), (3, 0.1)):
        runner.epoch = epoch
        hook.after_val_epoch(runner, dict(acc=value))
    assert runner.present[1] == ['best_acc_epoch_1.pth', 'best_acc_epoch_2.pth']
    assert files(tmp_path) == ['best_acc_epoch_2.pth']


def test_paths_of_a_resumed_file_delete_nothing_elsewhere(tmp_path: Path) -> None:
    """The best checkpoint of the run that a file comes from is not this run's, nor is a directory a checkpoint."""
    work_dir, other = tmp_path / 'b', tmp_path / 'a'
    for directory in (work_dir, other / 'best.pth'):
        directory.mkdir(parents=True)
    (other / 'best_acc_epoch_1.pth').touch()
    (tmp_path / 'epoch_..' / 'x').mkdir(parents=True)
    for best in (other, other / 'best.pth', other / 'best_acc_epoch_1.pth', work_dir):
        runner = FakeRunner(work_dir)
        runner.message_hub.update_info('best_ckpt', str(best))
        runner.message_hub.update_info('best_score', -1.0)
        runner.message_hub.update_info('keep_ckpt_ids', ['../../a/best_acc_epoch_1', 1, 2])
        hook = hook_of(runner, save_best='acc', max_keep_ckpts=1)
        hook.after_val_epoch(runner, dict(acc=0.5))
        assert best.exists()
        assert list(hook.keep_ckpt_ids) == []
