"""engine/progress.py: what other processes learn about a run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from deformable_vit.engine import RunProgress, read_progress
from deformable_vit.engine.progress import ProgressHook


@pytest.fixture
def runner() -> SimpleNamespace:
    """Return what the hook reads of a runner in its third iteration of ten."""
    hub = MessageHub.get_instance('test')
    for loss in [8.0, *[2.0] * 10, *[3.0] * 10]:
        hub.update_scalar('train/loss', loss)
    return SimpleNamespace(iter=2, max_iters=10, message_hub=hub, val_dataloader=range(4), test_dataloader=range(5))


def test_progress_of_training_has_the_mean_loss_of_the_last_iterations(tmp_path: Path, runner: SimpleNamespace) -> None:
    file = tmp_path / 'progress.json'
    assert read_progress(file) is None
    ProgressHook(str(file)).after_train_iter(runner, 2)
    assert read_progress(file) == RunProgress('train', 3, 10, 2.5)
    assert [path.name for path in tmp_path.iterdir()] == ['progress.json']


def test_progress_is_written_twice_a_second_and_at_the_end(
    tmp_path: Path, runner: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, hook, now = tmp_path / 'progress.json', ProgressHook(str(tmp_path / 'progress.json')), [100.0]
    monkeypatch.setattr('deformable_vit.engine.progress.time.monotonic', lambda: now[0])
    written = []
    for batch, seconds in enumerate([100.0, 100.4, 100.6, 100.7, 100.8]):
        now[0] = seconds
        hook.after_test_iter(runner, batch)
        written.append(read_progress(file).done)
    assert written == [1, 1, 3, 3, 5]
    assert read_progress(file) == RunProgress('test', 5, 5)
    now[0] = 102.0
    hook.after_val_iter(runner, 1)
    assert read_progress(file) == RunProgress('val', 2, 4, 2.5)
