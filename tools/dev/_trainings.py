"""Train and test models in parallel with tools/train.py and tools/test.py, with a log for each model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0))

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


def missed(work_dir: Path, minimum: dict[str, float]) -> list[str]:
    """Print the metrics that have a minimum; return those that miss it. A detector without detections has none."""
    found = {key: metrics(work_dir).get(key, 0.0) for key in minimum}
    for key, value in found.items():
        print(f'{work_dir.name}: {key} {value:.3g}, at least {minimum[key]:g}', flush=True)
    return [f'{work_dir.name} {key}' for key, value in found.items() if not value >= minimum[key]]


def run(jobs: Mapping[Path, Commands], at_once: int) -> Iterator[tuple[Path, str]]:
    """Run the tools of each job one after the other; yield the job and its error, empty if there is none, at its end.

    The jobs that still run when this ends are stopped.

    Args:
        jobs: Command lines by work directory, which gets their output in ``log.txt``.
        at_once: Jobs that run at the same time, each with an equal share of the cores.
    """
    # Through `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit('interrupted'))
    env = os.environ | {'OMP_NUM_THREADS': str(max(1, CORES // at_once))}
    waiting, running = list(jobs), dict[Path, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                work_dir = waiting.pop(0)
                running[work_dir] = _start(next(jobs[work_dir]), work_dir, env)
            time.sleep(0.2)
            for work_dir, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[work_dir]
                if process.returncode:
                    log = work_dir / 'log.txt'
                    end = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
                    yield work_dir, f'{work_dir.name} failed; the end of {log}:\n{end}'
                elif command := next(jobs[work_dir], None):
                    running[work_dir] = _start(command, work_dir, env)
                else:
                    yield work_dir, ''
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(command: tuple[object, ...], work_dir: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    tool, *args = map(str, command)
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / 'log.txt').open('a') as log:
        return subprocess.Popen(
            [sys.executable, f'tools/{tool}', *args], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT
        )
