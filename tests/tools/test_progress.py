"""tools/_progress.py: what is shown of the progress of trainings and tests, with and without a terminal."""

import _progress
import pytest
from _progress import Display, Task, clock

from deformable_vit.engine import RunProgress


def train(done: int, loss: float | None = 1.5) -> RunProgress:
    return RunProgress('train', done, 100, loss)


class Clock:
    """Stand-in for ``time`` that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Load:
    """Stand-in for ``OtherProcesses``."""

    text: str | None = None

    def warning(self, threads: int) -> str | None:
        return self.text


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Control the clock, on a machine without other processes."""
    stopped = Clock()
    monkeypatch.setattr(_progress, 'time', stopped)
    monkeypatch.setattr(_progress, 'OtherProcesses', Load)
    return stopped


def test_eta_follows_the_speed_of_the_last_two_minutes() -> None:
    task = Task('', 0.0)
    assert task.details() == {'percent': 'starting'}
    task.update(train(10), 100.0)
    assert task.eta() is None
    task.update(train(20), 110.0)  # one iteration per second
    assert task.eta() == pytest.approx(80)
    for i in range(14):  # one in 20 seconds
        task.update(train(21 + i), 130.0 + 20 * i)
    assert task.eta() == pytest.approx((100 - 34) * 20)


def test_validation_and_repeated_reads_do_not_count() -> None:
    task = Task('', 0.0)
    task.update(train(10), 100.0)
    task.update(train(20), 110.0)
    task.update(RunProgress('val', 3, 4), 150.0)
    task.update(train(20), 151.0)
    assert task.eta() == pytest.approx(80)
    assert task.details() == {
        'percent': '20 %',
        'iterations': 'iteration 20 of 100',
        'loss': 'loss 1.5',
        'eta': 'ETA 1:20',
    }


@pytest.mark.parametrize(('seconds', 'text'), [(0.4, '0:00'), (65, '1:05'), (3599.6, '1:00:00'), (7322, '2:02:02')])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_without_a_terminal_there_is_a_line_a_minute(time: Clock, capsys: pytest.CaptureFixture) -> None:
    with Display(total=31) as display:
        first, second = display.start('training A'), display.start('training B')
        display.count()
        for second_of_run in range(1, 181):
            time.now = 1000.0 + second_of_run
            display.update(first, train(second_of_run // 2))
            display.update(second, None)
        display.finish(first)
        time.now += 60
        display.update(second, RunProgress('test', 1, 3))
    assert capsys.readouterr().out.splitlines() == [
        '  1 of 31 done; training A: 30 %, iteration 30 of 100, loss 1.5, ETA 2:18; training B: starting',
        '  1 of 31 done; training A: 60 %, iteration 60 of 100, loss 1.5, ETA 1:19; training B: starting',
        '  1 of 31 done; training A: 90 %, iteration 90 of 100, loss 1.5, ETA 0:20; training B: starting',
        '  1 of 31 done; training B: 33 %, iteration 1 of 3',
    ]


def test_lines_become_rarer_where_the_log_is_to_stay_short(time: Clock, capsys: pytest.CaptureFixture) -> None:
    with Display(relax_after=2) as display:
        task = display.start('training')
        for minute in range(1, 61):
            time.now = 1000.0 + 60 * minute
            display.update(task, train(minute))
    shown = [int(line.split('%')[0].split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert shown == [1, 2, 4, 6, 10, 14, 22, 30, 46]


def test_busy_cores_are_reported_once_in_ten_minutes(
    time: Clock, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Display(interval=1e9) as display:
        task = display.start('training')
        monkeypatch.setattr(Load, 'text', 'warning: busy')
        for minute in range(1, 25):
            time.now = 1000.0 + 60 * minute
            display.update(task, None)
        assert capsys.readouterr().out.splitlines() == 3 * ['warning: busy']
        monkeypatch.setattr(Load, 'text', None)
        time.now += 3600
        display.update(task, None)
    assert capsys.readouterr().out == ''
