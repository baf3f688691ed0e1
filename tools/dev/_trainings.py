"""Train and test models in parallel with tools/train.py and tools/test.py, with a log for each model."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1

Commands = Iterator[tuple[object, ...]]


def run_tool(tool: str, *args: object) -> None:
    """Run ``tools/<tool>`` in the repository root."""
    subprocess.run([sys.executable, f'tools/{tool}', *map(str, args)], cwd=ROOT, check=True)


def train_and_test(
    config: str | Path, work_dir: Path, train_options: Iterable[object] = (), test_options: Iterable[object] = ()
) -> Commands:
    """Yield the command lines that train a model and test its last checkpoint; :func:`metrics` has the results."""
    yield 'train.py', config, '--work-dir', work_dir, *train_options
    yield 'test.py', config, last_checkpoint(work_dir), '--work-dir', work_dir / 'test', *test_options


def last_checkpoint(work_dir: Path) -> Path:
    """Return the last checkpoint of a training."""
    return Path((work_dir / 'last_checkpoint').read_text().strip())


def metrics(work_dir: Path) -> dict[str, float]:
    """Return the metrics of the last test."""
    newest = max(work_dir.glob('test/*/*.json'), key=lambda file: file.stat().st_mtime)
    found: dict[str, float] = json.loads(newest.read_text().splitlines()[-1])
    return found


def run(jobs: Mapping[Path, Commands], at_once: int, seconds: float) -> Iterator[tuple[Path, str]]:
    """Run the tools of each job one after the other; yield the job and its error, empty if there is none, at its end.

    Every so many seconds, print how long the jobs that run will take. The jobs that still run when this ends are
    stopped.

    Args:
        jobs: Command lines by work directory, which gets their output in ``log.txt``.
        at_once: Jobs that run at the same time, each with an equal share of the cores.
        seconds: Between two lines.
    """
    # Through `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit('interrupted'))
    env = os.environ | {'OMP_NUM_THREADS': str(max(1, CORES // at_once))}
    waiting, running = dict(jobs), dict[Path, subprocess.Popen]()
    begin = shown = time.monotonic()
    try:
        while waiting or running:
            for work_dir in list(waiting)[: at_once - len(running)]:
                running[work_dir] = _start(next(waiting[work_dir]), work_dir, env)
                del waiting[work_dir]
            time.sleep(0.2)
            for work_dir, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[work_dir]
                if process.returncode:
                    yield work_dir, f'{work_dir.name} failed; the end of {work_dir / "log.txt"}:\n{_end(work_dir)}'
                elif command := next(jobs[work_dir], None):
                    running[work_dir] = _start(command, work_dir, env)
                else:
                    yield work_dir, ''
            if (now := time.monotonic()) - shown > seconds:
                shown = now
                states = [f'{work_dir.name} {_remaining(work_dir)}' for work_dir in running]
                print(f'  {(now - begin) / 60:.0f} minutes: {", ".join(states)}', flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(command: tuple[object, ...], work_dir: Path, env: dict[str, str]) -> subprocess.Popen:
    tool, *args = map(str, command)
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / 'log.txt').open('a') as log:
        return subprocess.Popen(
            [sys.executable, f'tools/{tool}', *args], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT
        )


def _end(work_dir: Path) -> str:
    return '\n'.join((work_dir / 'log.txt').read_text(errors='replace').splitlines()[-15:])


def _remaining(work_dir: Path) -> str:
    found = re.findall(r'eta: [\d:]+', (work_dir / 'log.txt').read_text(errors='replace'))
    return found[-1] if found else 'starting'
