"""Show how far training, testing and predictions are: bars on a terminal, elsewhere a line a minute."""

import threading
import time
from collections import deque

import torch
from _machine import OtherProcesses
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column

from deformable_vit.engine import RunProgress

_WINDOW = 120.0  # seconds, over which the speed is measured
_LOAD = 60.0  # seconds, over which the load of other processes is measured


class Task:
    """One training or test, known by its title; see :meth:`Display.start`."""

    def __init__(self, title: str, now: float, unit: str = 'iteration') -> None:
        self.title, self.unit = title, unit
        self.began = now
        self.progress: RunProgress | None = None
        self.seen: deque[tuple[float, int]] = deque()  # time and iterations

    def update(self, progress: RunProgress, now: float) -> None:
        """Take the latest progress; validation during training does not count."""
        if progress.task == 'val' or progress == self.progress:
            return
        if self.progress is not None and progress.done < self.progress.done:
            self.seen.clear()
        self.progress = progress
        self.seen.append((now, progress.done))
        while len(self.seen) > 2 and now - self.seen[1][0] > _WINDOW:
            self.seen.popleft()

    def eta(self) -> float | None:
        """Return the seconds that remain at the latest speed, or ``None`` before there is one."""
        if self.progress is None or len(self.seen) < 2:
            return None
        (first, begin), (last, end) = self.seen[0], self.seen[-1]
        return (self.progress.total - end) * (last - first) / (end - begin)

    def details(self) -> dict[str, str]:
        """Return percent, iterations, loss and ETA as text, as far as they are known."""
        if self.progress is None:
            return {'percent': 'starting'}
        done, total, loss, eta = self.progress.done, self.progress.total, self.progress.loss, self.eta()
        found = {'percent': f'{100 * done // total} %', 'iterations': f'{self.unit} {done} of {total}'}
        if loss is not None:
            found['loss'] = f'loss {loss:.4g}'
        if eta is not None:
            found['eta'] = f'ETA {clock(eta)}'
        return found


class Display:
    """Print messages and the progress of tasks, from several threads if need be; use it as a context manager.

    Args:
        total: Number of tasks that are planned, counted by :meth:`count`; 0 shows no count.
        interval: Seconds between two lines where there is no terminal.
        relax_after: Double the interval after so many lines, for a log of limited length.
    """

    def __init__(self, total: int = 0, interval: float = 60.0, relax_after: int | None = None) -> None:
        self.total, self.interval, self.relax_after = total, interval, relax_after
        self.counted = self.lines = 0
        self.tasks: dict[Task, int | None] = {}
        self.lock = threading.Lock()
        self.others, self.measured = OtherProcesses(), time.monotonic()
        self.threads = torch.get_num_threads()
        console = Console()
        one_line = dict(no_wrap=True, overflow='ellipsis')
        self.bars = Progress(
            TextColumn('{task.description}', table_column=Column(**one_line), markup=False),
            BarColumn(20),
            TaskProgressColumn(),
            TextColumn('{task.fields[details]}', table_column=Column(**one_line), markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.printed = time.monotonic()

    def __enter__(self) -> 'Display':
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def print(self, text: str = '') -> None:
        if self.bars.disable:
            print(text, flush=True)
        else:
            self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def start(self, title: str, unit: str = 'iteration') -> Task:
        task = Task(title, time.monotonic(), unit)
        with self.lock:
            self.tasks[task] = None if self.bars.disable else self.bars.add_task(title, total=None, details='')
        return task

    def update(self, task: Task, progress: RunProgress | None) -> None:
        """Show a task's progress, and warn of other processes that keep the cores busy."""
        now = time.monotonic()
        with self.lock:
            if progress is not None:
                task.update(progress, now)
            if not self.bars.disable:
                details = task.details()
                shown = ' '.join(details[key] for key in ('loss', 'eta') if key in details)
                done, total = (task.progress.done, task.progress.total) if task.progress else (None, None)
                self.bars.update(self.tasks[task], completed=done, total=total, details=shown)
            elif now - self.printed >= self.interval:
                self._print_line(now)
            if now - self.measured >= _LOAD:
                self.warn(now)

    def _print_line(self, now: float) -> None:
        tasks = [f'{task.title}: {", ".join(task.details().values())}' for task in self.tasks]
        count = [f'{self.counted} of {self.total} done'] if self.total else []
        self.print('  ' + '; '.join(count + tasks))
        self.printed = now
        self.lines += 1
        if self.relax_after and self.lines % self.relax_after == 0:
            self.interval *= 2

    def warn(self, now: float | None = None) -> None:
        """Print a warning if other processes kept the cores busy since the last measurement, then be quiet a while."""
        if warning := self.others.warning(self.threads):
            self.print(warning)
        # After a warning the next comes ten minutes later at the earliest.
        self.measured = (time.monotonic() if now is None else now) + (600.0 - _LOAD if warning else 0.0)
        self.others = OtherProcesses()

    def finish(self, task: Task) -> None:
        with self.lock:
            bar = self.tasks.pop(task)
            if bar is not None:
                self.bars.remove_task(bar)

    def count(self) -> None:
        """Count one more of the planned tasks as done."""
        with self.lock:
            self.counted += 1


def clock(seconds: float) -> str:
    """Return minutes and seconds, such as 3:05, or hours too."""
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02}:{rest:02}' if minutes >= 60 else f'{minutes}:{rest:02}'
