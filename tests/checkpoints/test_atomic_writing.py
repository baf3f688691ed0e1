"""At any moment of a training, of a kill or a full disk, its checkpoints are whole, and it removes no others."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import saved
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import Hook
from mmengine.runner import find_latest_checkpoint
from toy_runner import runner

from deformable_vit.checkpoints import (
    AtomicBackend,
    enable_atomic_writing,
    read_checkpoint,
    remove_partial_files,
    write_atomically,
)

KEEP = dict(max_keep_ckpts=1, save_best='x/acc')


class AtomicHook(Hook):
    """Write atomically below the work directory."""

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        enable_atomic_writing(runner.work_dir)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    register_backend('local', LocalBackend, force=True, prefixes='')
    AtomicBackend.root = None
    AtomicBackend.outdated.clear()
    AtomicBackend.written.clear()


def train(work_dir: Path, epochs: int, resume: Path | bool = False, **checkpoint: Any) -> None:
    """Train up to an epoch; ``resume`` from a file, or from what ``last_checkpoint`` names."""
    source = dict(load_from=str(resume)) if isinstance(resume, Path) else {}
    runner(work_dir, epochs, [AtomicHook()], checkpoint=KEEP | checkpoint, resume=bool(resume), **source).train()


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob('*.pth'))


def in_child(function: Callable[[], None]) -> int:
    """Return the exit status of a function in a forked process."""
    pid = os.fork()
    if not pid:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A work directory after one epoch."""
    train(tmp_path / 'a', 1)
    assert files(tmp_path / 'a') == ['best_x_acc_epoch_1.pth', 'epoch_1.pth']
    return tmp_path / 'a'


def end_at_call(n: int) -> None:
    """End the process, as SIGKILL does, at its n-th call from now on that changes files."""

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal n
            n -= 1
            return original(*args, **kwargs) if n >= 0 else os._exit(9)

        return call

    for name in ('fsync', 'replace', 'unlink', 'remove'):
        setattr(os, name, counted(getattr(os, name)))


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_whole_checkpoints(tmp_path: Path) -> None:
    train(tmp_path / 'unbroken', 3)
    expected = read_checkpoint(tmp_path / 'unbroken' / 'epoch_3.pth')['state_dict']
    for n in range(100):
        work_dir = tmp_path / str(n)
        train(work_dir, 1)
        status = in_child(lambda n=n, work_dir=work_dir: (end_at_call(n), train(work_dir, 3, resume=True)))
        for path in (find_latest_checkpoint(str(work_dir)), *work_dir.glob('*.pth')):
            read_checkpoint(path)
        train(work_dir, 3, resume=True)
        found = read_checkpoint(work_dir / 'epoch_3.pth')['state_dict']
        assert all(torch.equal(value, expected[name]) for name, value in found.items())
        remove_partial_files(work_dir)
        assert not list(work_dir.glob('.*.part'))
        if not status:
            break
        assert status == 9
    assert n > 15


def test_outdated_checkpoints_are_removed_after_the_next_is_whole(trained: Path) -> None:
    """Also the best one, and where ``out_dir`` is another directory."""
    seen = []
    write = os.replace

    def replace(source: Path, target: Path) -> None:
        write(source, target)
        seen.append(files(trained))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, 'replace', replace)
        train(trained, 2, resume=True)
    best = ['best_x_acc_epoch_1.pth', 'best_x_acc_epoch_2.pth']
    assert [best[0], 'epoch_1.pth', 'epoch_2.pth'] in seen
    assert [*best, 'epoch_2.pth'] in seen
    assert files(trained) == [best[1], 'epoch_2.pth']
    assert (trained / 'last_checkpoint').read_text() == str(trained / 'epoch_2.pth')
    train(trained.parent / 'b', 3, out_dir=str(trained.parent / 'out'))
    assert files(trained.parent / 'out' / 'b') == ['best_x_acc_epoch_3.pth', 'epoch_3.pth']


def test_a_full_disk_leaves_the_checkpoint_before_it(trained: Path) -> None:
    before = {path: path.read_bytes() for path in trained.glob('*.pth')}

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        with pytest.raises(OSError, match='File too large'):
            train(trained, 2, resume=True)
        # Neither a log nor a smaller file of another kind takes its place.
        get_file_backend(str(trained)).put_text('{}', str(trained / 'log.json'))

    assert in_child(limited) == 0
    assert {path: path.read_bytes() for path in trained.glob('*.pth')} == before
    assert find_latest_checkpoint(str(trained)) == str(trained / 'epoch_1.pth')
    assert not list(trained.glob('.*.part'))
    train(trained, 2, resume=True)
    assert files(trained) == ['best_x_acc_epoch_2.pth', 'epoch_2.pth']


@pytest.mark.parametrize('failing', ['fsync', 'replace'])
def test_an_unfinished_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    file = tmp_path / 'last_checkpoint'
    write_atomically(file, b'old')

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match='No space'):
        write_atomically(file, b'new')
    assert file.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [file]


def test_links_and_devices_are_written_to(tmp_path: Path) -> None:
    (tmp_path / 'target').write_bytes(b'old')
    (tmp_path / 'link').symlink_to('target')
    write_atomically(tmp_path / 'link', b'new')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'target').read_bytes() == b'new'
    write_atomically(Path(os.devnull), b'new')
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize('victim', ['home', 'home.pth', 'a/../home', 'link', '.', 'a', 'home/thesis.txt'])
@pytest.mark.parametrize('several', [False, True])
def test_a_resumed_checkpoint_names_no_files_to_remove_elsewhere(
    trained: Path, victim: str, several: bool, capfd: pytest.CaptureFixture
) -> None:
    """Neither as the best one nor by the numbers of those to keep, whatever ``..`` and links lead to."""
    home = trained.parent
    for name in ('home', 'home.pth'):
        (home / name).mkdir()
        (home / name / 'thesis.txt').write_text('years of work')
    (trained / 'link').symlink_to(home / 'home')
    path = str(trained / 'link' if victim == 'link' else home / victim)
    checkpoint = torch.load(trained / 'epoch_1.pth', weights_only=False)
    info, hub = checkpoint['message_hub']['runtime_info'], checkpoint['message_hub']
    numbers = ['../../home', '../link', 'x/../../../home', 1]
    info.update({'best_ckpt': path, 'best_score': -1.0, 'keep_ckpt_ids': numbers, 'last_ckpt': path})
    info.update({'best_ckpt_x/acc': path, 'best_score_x/acc': -1.0})
    hub['resumed_keys'].update(dict.fromkeys(info, True))
    (trained / 'attack.pth').write_bytes(saved(checkpoint))
    template = '../{}' if several else 'epoch_{}.pth'
    train(trained, 2, trained / 'attack.pth', save_best=['x/acc'] if several else 'x/acc', filename_tmpl=template)
    for name in ('home', 'home.pth'):
        assert (home / name / 'thesis.txt').read_text() == 'years of work'
    assert (trained / 'attack.pth').exists()
    assert f'stays, because it is outside of {trained}' in ''.join(capfd.readouterr())


def test_another_work_directory_keeps_its_checkpoints(trained: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in trained.glob('*.pth')}
    train(tmp_path / 'b', 3, trained / 'epoch_1.pth')
    assert {path: path.read_bytes() for path in trained.glob('*.pth')} == before
    assert files(tmp_path / 'b') == ['best_x_acc_epoch_3.pth', 'epoch_3.pth']


def test_directories_of_deepspeed_are_removed_when_they_have_a_successor(tmp_path: Path) -> None:
    enable_atomic_writing(tmp_path)
    for epoch in range(1, 4):
        (tmp_path / f'epoch_{epoch}.pth').mkdir()
        (tmp_path / f'epoch_{epoch}.pth' / 'shard').touch()
        if epoch > 1:
            get_file_backend(str(tmp_path)).rmtree(str(tmp_path / f'epoch_{epoch - 1}.pth'))
        assert files(tmp_path) == [f'epoch_{n}.pth' for n in range(max(1, epoch - 1), epoch + 1)]
    get_file_backend(str(tmp_path)).put(b'', str(tmp_path / 'epoch_4.pth'))
    assert files(tmp_path) == ['epoch_3.pth', 'epoch_4.pth']
