"""How long a training will take, said after its first iterations."""

import logging
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from toy_runner import runner

from deformable_vit.engine import DurationHook
from deformable_vit.engine.hooks import duration


class Clock(Hook):
    """Replace the seconds that IterTimerHook measures, one for each iteration; the last stands for all others."""

    priority = 'LOW'

    def __init__(self, *times: float) -> None:
        self.times = times

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        runner.message_hub.update_scalar('train/time', self.times[min(runner.iter, len(self.times) - 1)])


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if 'per iteration' in record.getMessage():
            self.lines.append(record.getMessage())


def said(work_dir: Path, times: tuple[float, ...], epochs: int, **kwargs: Any) -> list[str]:
    """Return the lines of a training of two iterations per epoch."""
    training = runner(work_dir, epochs, [Clock(*times), DurationHook(**kwargs)])
    lines = Lines()
    MMLogger.get_current_instance().addHandler(lines)
    training.train()
    return lines.lines


def test_one_line_without_the_first_iteration(tmp_path: Path) -> None:
    (line,) = said(tmp_path, (20, 2), epochs=20, iterations=4)
    assert line.startswith('2 s per iteration: about 1 min for the remaining 36')


def test_slow_iterations_do_not_wait_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('torch.accelerator.is_available', lambda: False)
    (line,) = said(tmp_path, (120,), epochs=20)
    assert line.startswith('120 s per iteration: about 1 h 18 min for the remaining 39')
    assert 'CPU' in line


def test_the_advice_is_for_slow_trainings_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('torch.accelerator.is_available', lambda: True)
    (line,) = said(tmp_path, (120,), epochs=2)
    assert 'CPU' not in line


def test_nothing_is_said_at_the_end(tmp_path: Path) -> None:
    assert said(tmp_path, (2,), epochs=2, iterations=4) == []


def test_a_resumed_training_counts_what_remains(tmp_path: Path) -> None:
    said(tmp_path, (2,), epochs=2)
    checkpoint = str(tmp_path / 'epoch_2.pth')
    training = runner(tmp_path, 6, [Clock(2), DurationHook(iterations=3)], load_from=checkpoint, resume=True)
    lines = Lines()
    MMLogger.get_current_instance().addHandler(lines)
    training.train()
    (line,) = lines.lines
    assert line.startswith('2 s per iteration: about 10 s for the remaining 5')


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(12, 'about 12 s'), (90, 'about 2 min'), (3600, 'about 1 h 0 min'), (200_000, 'about 2 d 7 h')],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration._duration(seconds) == text
