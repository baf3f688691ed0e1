"""Train and test a model with tools/train.py and tools/test.py, with their output in a log and a progress bar."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from _processes import last_lines, start_tool
from _progress import Display, clock

from deformable_vit.engine import UserError, read_metrics, read_progress

T = TypeVar('T')
R = TypeVar('R')


@contextmanager
def parallel(
    function: Callable[[T, threading.Event], R], items: Iterable[T], jobs: int
) -> Iterator[dict[Future[R], T]]:
    """Call ``function(item, stop)`` for each item in ``jobs`` threads, as a context manager.

    However the context ends, ``stop`` is set for the calls that still run, and no other begins.

    Returns:
        The futures of all calls and their items, in the order of ``items``.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(jobs)
    futures = {pool.submit(function, item, stop): item for item in items}
    try:
        yield futures
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # before `stop`, which lets the pool start the next one
        stop.set()
        pool.shutdown()


def train_and_test(
    title: str,
    config: str | Path,
    work_dir: Path,
    display: Display,
    *,
    train_options: tuple[object, ...] = (),
    test_options: tuple[object, ...] = (),
    threads: int | None = None,
    stop: threading.Event | None = None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], Path]:
    """Train and test a model, with the output of both tools in ``work_dir/log.txt``.

    Args:
        title: Of the model, for the console.
        config: Path of its config.
        work_dir: For checkpoints and logs.
        display: For the progress.
        train_options: Further arguments of train.py.
        test_options: Further arguments of test.py.
        threads: Threads of CPU ops (default: as in this process).
        stop: Event that ends the run.
        tick: Called every second.

    Returns:
        The metrics of the test and the checkpoint.

    Raises:
        UserError: A tool failed, or ``stop`` was set.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    log, tested = work_dir / 'log.txt', work_dir / 'test'
    if '--resume' not in train_options:
        log.unlink(missing_ok=True)

    def call(task: str, tool: str, *args: object) -> None:
        run_with_progress(
            f'{task} {title}', tool, *args, log=log, display=display, threads=threads, stop=stop, tick=tick
        )

    call('training', 'train.py', config, '--work-dir', work_dir, *train_options)
    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    call('testing', 'test.py', config, checkpoint, '--work-dir', tested, *test_options)
    return read_metrics(tested), checkpoint


def run_with_progress(
    title: str,
    tool: str,
    *args: object,
    log: Path,
    display: Display,
    threads: int | None = None,
    stop: threading.Event | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Run train.py or test.py, append its output to a log, and show its progress.

    Raises:
        UserError: The tool failed, and the last lines of its log are on the console; or ``stop`` was set.
    """
    file = log.with_name('progress.json')
    file.unlink(missing_ok=True)
    stop = stop or threading.Event()
    begin = time.monotonic()
    task = display.start(title)
    try:
        with log.open('a') as opened:
            process = start_tool(tool, *args, log=opened, threads=threads, progress=file)
            try:
                while not _ended(title, process, stop):
                    tick()
                    display.update(task, read_progress(file))
            finally:
                process.terminate()
                process.wait()
                tick()
    finally:
        display.finish(task)
    if process.returncode:
        display.print(f'the end of {log}:\n{last_lines(log)}')
        raise UserError(f'{title} failed; see {log}')
    last = read_progress(file)
    loss = f', loss {last.loss:.4g}' if last and last.loss is not None else ''
    display.print(f'{title}: done in {clock(time.monotonic() - begin)}{loss}')


def _ended(title: str, process: subprocess.Popen, stop: threading.Event) -> bool:
    """Wait a second; return whether the process has ended.

    Raises:
        UserError: ``stop`` was set.
    """
    if stop.is_set():
        raise UserError(f'{title} was stopped')
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        return False
    return True
