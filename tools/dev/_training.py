"""Train and test models in parallel with tools/train.py and tools/test.py, with a log for each model."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar('T')
R = TypeVar('R')

ROOT = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class ToolError(Exception):
    """A tool failed, or was stopped."""


class Trainings:
    """Run tools in threads; as a context manager, end those that still run when the context ends.

    Args:
        jobs: Models at a time. Each gets an equal share of the cores.
    """

    def __init__(self, jobs: int) -> None:
        self.pool = ThreadPoolExecutor(jobs)
        self.threads = max(1, CORES // jobs)
        self.lock = threading.Lock()
        self.running: dict[subprocess.Popen, Path] = {}
        self.stopped = False

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through __exit__
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            self.stopped = True
            for process in self.running:
                process.terminate()
        self.pool.shutdown()

    def run(self, tool: str, *args: object, log: Path) -> None:
        """Run ``tools/<tool>`` in the repository root, and append its output to a log.

        Raises:
            ToolError: The tool failed, or the context has ended.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, args)]
        env = os.environ | {'OMP_NUM_THREADS': str(self.threads)}
        with self.lock, log.open('a') as opened:
            if self.stopped:
                raise ToolError(f'tools/{tool} was stopped')
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=opened, stderr=subprocess.STDOUT)
            self.running[process] = log
        status = process.wait()
        with self.lock:
            del self.running[process]
        if status:
            end = log.read_text(errors='replace').splitlines()[-15:]
            raise ToolError('\n'.join([f'tools/{tool} failed with exit status {status}; the end of {log}:', *end]))

    def train_and_test(
        self,
        config: str | Path,
        work_dir: Path,
        train_options: Iterable[object] = (),
        test_options: Iterable[object] = (),
    ) -> tuple[dict[str, float], Path]:
        """Train and test a model, with the output of both tools in ``work_dir/log.txt``.

        Returns:
            The metrics of the test, and the checkpoint.

        Raises:
            ToolError: A tool failed, or the context has ended.
        """
        log = work_dir / 'log.txt'
        self.run('train.py', config, '--work-dir', work_dir, *train_options, log=log)
        checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
        tested = work_dir / 'test'
        self.run('test.py', config, checkpoint, '--work-dir', tested, *test_options, log=log)
        newest = max(tested.glob('*/*.json'), key=lambda file: file.stat().st_mtime)
        metrics: dict[str, float] = json.loads(newest.read_text().splitlines()[-1])
        return metrics, checkpoint

    def results(self, function: Callable[[T], R], items: Iterable[T], seconds: float) -> Iterator[tuple[T, Future[R]]]:
        """Call a function for each item; yield item and future as they are done.

        Every so many seconds, print how long what runs will take.
        """
        futures = {self.pool.submit(function, item): item for item in items}
        start = time.monotonic()
        while futures:
            done, _ = wait(futures, seconds, FIRST_COMPLETED)
            for future in done:
                yield futures.pop(future), future
            if not done:
                with self.lock:
                    running = [f'{log.parent.name} {remaining(log)}' for log in self.running.values()]
                print(f'  {(time.monotonic() - start) / 60:.0f} minutes: {", ".join(running)}', flush=True)


def remaining(log: Path) -> str:
    """Return the last estimate of a log of mmengine."""
    found = re.findall(r'eta: [\d:]+', log.read_text(errors='replace'))
    return found[-1] if found else 'starting'


def call(main: Callable[[], None]) -> None:
    """Call the main function of a tool; exit with a message when a training failed or Ctrl-C was pressed."""
    try:
        main()
    except ToolError as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted')
