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
from toy_training import final_weights, toy_config

pytestmark = pytest.mark.slow


def start_training(directory: Path, name: str, config: Path, restarts: int) -> subprocess.Popen:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(
        [str(ROOT / 'tests' / 'reliability'), ENVIRONMENT['PYTHONPATH'], os.environ.get('PYTHONPATH', '')]
    )
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


def test_killed_process_is_started_again_and_nothing_changes(tmp_path: Path, config: Path) -> None:
    draw = random.Random(0)
    broken = start_training(tmp_path, 'broken', config, restarts=1)
    kill_one(broken, tmp_path / 'broken' / 'epoch_2.pth', draw.uniform(0, 0.2), rank=draw.randint(0, 1))
    unbroken = start_training(tmp_path, 'unbroken', config, restarts=0)
    for name, process in (('unbroken', unbroken), ('broken', broken)):
        assert process.wait(timeout=300) == 0, (tmp_path / f'{name}.log').read_text()[-3000:]
    a, b = final_weights(tmp_path / 'unbroken'), final_weights(tmp_path / 'broken')
    assert [key for key in a if not torch.equal(a[key], b[key])] == []
    assert 'resumed epoch: ' in (tmp_path / 'broken.log').read_text()
