"""Two processes, of which one is killed: torchrun starts both again and the training ends as an unbroken one."""

import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from running import ENVIRONMENT, ROOT
from toy_training import ITERATIONS, assert_equal, final_weights, toy_config

from deformable_vit.checkpoints import read_checkpoint

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def start_training(
    directory: Path, name: str, config: Path, restarts: int, nodes: int = 1, node: int = 0, port: int | None = None
) -> subprocess.Popen:
    """Start tools/dist_train.sh with two processes in all."""
    paths = os.pathsep.join([str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')])
    environment = dict(MAX_RESTARTS=restarts, PORT=port or free_port(), NNODES=nodes, NODE_RANK=node, OMP_NUM_THREADS=1)
    environment = {key: str(value) for key, value in environment.items()} | {'PYTHONPATH': paths}
    with (directory / f'{name}.log').open('ab') as log:
        return subprocess.Popen(
            ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(config), str(2 // nodes), '--work-dir', name],
            cwd=directory,
            env=ENVIRONMENT | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def workers_of(process: subprocess.Popen) -> list[int]:
    """Return the training processes, of which torchrun is the parent."""
    return [pid for pid in children_of(process.pid) if 'train.py' in Path(f'/proc/{pid}/cmdline').read_text()]


def wait_for(process: subprocess.Popen, checkpoint: Path) -> None:
    deadline = time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_one(process: subprocess.Popen, checkpoint: Path, delay: float, rank: int) -> None:
    """Kill a process some time after a checkpoint was written."""
    wait_for(process, checkpoint)
    time.sleep(delay)
    os.kill(workers_of(process)[rank], signal.SIGKILL)


def write_config(directory: Path) -> Path:
    """Write the config of the toy training for tools/train.py."""
    built = toy_config(directory, keep=-1, model=dict(pause=0.1))
    built.pop('work_dir')
    built.default_scope = 'mmpretrain'
    built.custom_imports = dict(imports=['deformable_vit', 'toy_training'], allow_failed_imports=False)
    file = directory / 'toy.py'
    built.dump(file)
    return file


def finish(directory: Path, name: str, process: subprocess.Popen) -> dict[str, torch.Tensor]:
    log = directory / f'{name}.log'
    assert process.wait(timeout=600) == 0, log.read_text()[-3000:]
    assert 'forcefully exiting' not in log.read_text()  # torchrun waits half a minute before it does that
    return final_weights(directory / name, ITERATIONS // 2)  # each process has half of the samples


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    directory = tmp_path_factory.mktemp('unbroken')
    return finish(directory, 'unbroken', start_training(directory, 'unbroken', write_config(directory), restarts=0))


@pytest.mark.campaign('kills of one of two processes', short=1, long=10)
def test_killed_process_is_started_again_and_nothing_changes(
    unbroken: dict[str, torch.Tensor], tmp_path: Path, config: Path, attempt: int
) -> None:
    draw = random.Random(attempt)
    process = start_training(tmp_path, 'broken', config, restarts=1)
    after = tmp_path / 'broken' / f'epoch_{draw.randint(1, 3)}.pth'
    kill_one(process, after, draw.uniform(0, 0.3), rank=draw.randint(0, 1))
    assert_equal(finish(tmp_path, 'broken', process), unbroken)
    assert 'resumed epoch: ' in (tmp_path / 'broken.log').read_text()


@pytest.mark.campaign('signals to two processes', short=1, long=5)
def test_signal_stops_all_processes_at_one_iteration(
    unbroken: dict[str, torch.Tensor], tmp_path: Path, config: Path, attempt: int
) -> None:
    """torchrun passes on SIGTERM; a terminal sends Ctrl-C to all processes, and torchrun sends it once more."""
    draw = random.Random(attempt)
    number = (signal.SIGTERM, signal.SIGINT)[attempt % 2]
    process = start_training(tmp_path, 'stopped', config, restarts=0)
    wait_for(process, tmp_path / 'stopped' / 'epoch_1.pth')
    time.sleep(draw.uniform(0, 0.5))
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)
    assert process.wait(timeout=120) != 0
    log = (tmp_path / 'stopped.log').read_text()
    stopped = re.findall(r'stopped by (\w+) after iteration (\d+); the last checkpoint is (\S+);', log)
    assert len(stopped) == 1, log[-3000:]
    assert stopped[0][0] == number.name
    assert 6 // 2 <= int(stopped[0][1]) < ITERATIONS // 2
    assert read_checkpoint(stopped[0][2])['meta']['iter'] == int(stopped[0][1])
    assert_equal(finish(tmp_path, 'stopped', start_training(tmp_path, 'stopped', config, restarts=1)), unbroken)


@pytest.mark.nightly
def test_a_killed_node_joins_again(unbroken: dict[str, torch.Tensor], tmp_path: Path, config: Path) -> None:
    """Two torchrun agents with one process each, as on two machines; one agent and its process are killed."""
    port = free_port()
    first = start_training(tmp_path, 'nodes', config, restarts=3, nodes=2, node=0, port=port)
    second = start_training(tmp_path, 'nodes', config, restarts=3, nodes=2, node=1, port=port)
    wait_for(first, tmp_path / 'nodes' / 'epoch_1.pth')
    for pid in (*children_of(second.pid), second.pid):
        os.kill(pid, signal.SIGKILL)
    second.wait()
    again = start_training(tmp_path, 'nodes', config, restarts=3, nodes=2, node=1, port=port)
    assert_equal(finish(tmp_path, 'nodes', first), unbroken)
    assert again.wait(timeout=120) == 0
