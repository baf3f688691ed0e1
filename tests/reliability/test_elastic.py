"""Two processes, of which one is killed: torchrun starts both again and the training ends as an unbroken one."""

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
from running import ENVIRONMENT, ROOT
from toy_training import ITERATIONS, final_weights, toy_config

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get('RELIABILITY_ELASTIC_KILLS', '1'))


def start_training(directory: Path, name: str, config: Path, restarts: int) -> subprocess.Popen:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(ROOT / 'tests' / 'reliability'), os.environ.get('PYTHONPATH', '')])
    environment = dict(MAX_RESTARTS=str(restarts), PORT=str(port), OMP_NUM_THREADS='1', PYTHONPATH=paths)
    with (directory / f'{name}.log').open('wb') as log:
        return subprocess.Popen(
            ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(config), '2', '--work-dir', name],
            cwd=directory,
            env=ENVIRONMENT | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the training processes, of which torchrun is the parent."""
    return [p for p in psutil.Process(process.pid).children() if any('train.py' in part for part in p.cmdline())]


def kill_one(process: subprocess.Popen, checkpoint: Path, delay: float, rank: int) -> None:
    """Kill a process some time after a checkpoint was written."""
    deadline = time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(delay)
    workers_of(process)[rank].send_signal(signal.SIGKILL)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write the config of the toy training for tools/train.py."""
    built = toy_config(tmp_path, keep=-1, model=dict(pause=0.1))
    built.pop('work_dir')
    built.default_scope = 'mmpretrain'
    built.custom_imports = dict(imports=['deformable_vit', 'toy_training'], allow_failed_imports=False)
    file = tmp_path / 'toy.py'
    built.dump(file)
    return file


def finish(directory: Path, name: str, process: subprocess.Popen) -> dict[str, torch.Tensor]:
    log = directory / f'{name}.log'
    assert process.wait(timeout=600) == 0, log.read_text()[-3000:]
    assert 'forcefully exiting' not in log.read_text()  # torchrun waits half a minute before it does that
    return final_weights(directory / name, ITERATIONS // 2)  # each process has half of the samples


def test_killed_process_is_started_again_and_nothing_changes(tmp_path: Path, config: Path) -> None:
    draw = random.Random(0)
    unbroken = finish(tmp_path, 'unbroken', start_training(tmp_path, 'unbroken', config, restarts=0))
    for i in range(KILLS):
        name = f'broken_{i}'
        process = start_training(tmp_path, name, config, restarts=1)
        after = tmp_path / name / f'epoch_{draw.randint(1, 3)}.pth'
        kill_one(process, after, draw.uniform(0, 0.3), rank=draw.randint(0, 1))
        weights = finish(tmp_path, name, process)
        assert [key for key in unbroken if not torch.equal(unbroken[key], weights[key])] == []
        assert 'resumed epoch: ' in (tmp_path / f'{name}.log').read_text()
