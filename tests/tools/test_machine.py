"""tools/_machine.py and tools/_peak.py: what the benchmark learns from the operating system."""

import os
import subprocess
import sys

import _machine
import numpy as np
import pytest
import torch
from _machine import OtherProcesses, device_name
from running import ENVIRONMENT, ROOT


def run_python(code: str) -> subprocess.CompletedProcess:
    env = ENVIRONMENT | {'PYTHONPATH': str(ROOT / 'tools')}
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(('own', 'others'), [(4.0, 0.0), (1.0, 1.5), (4.1, 0.0)])
def test_other_processes_are_what_is_busy_beside_this_one(
    own: float, others: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds in which the system works for four, ``own`` of them for this process."""
    clocks = {'busy_seconds': [10.0, 14.0], 'own_seconds': [3.0, 3.0 + own]}
    for name, values in clocks.items():
        monkeypatch.setattr(_machine, name, lambda values=values: values.pop(0))
    times = [102.0, 104.0]
    monkeypatch.setattr(_machine.time, 'perf_counter', lambda: times.pop(0))
    assert OtherProcesses().busy_cores() == pytest.approx(others)


def test_the_warning_names_the_busiest_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds on two cores, in which another process works for 1.5 of each."""
    values = {
        'busy_seconds': [10.0, 15.0],
        'own_seconds': [3.0, 5.0],
        'seconds_of_others': [{(7, 'cc1plus'): 1.0}, {(7, 'cc1plus'): 1.5, (8, 'python'): 2.5}],
    }
    for name, found in values.items():
        monkeypatch.setattr(_machine, name, lambda found=found: found.pop(0))
    times = [102.0, 104.0]
    monkeypatch.setattr(_machine.time, 'perf_counter', lambda: times.pop(0))
    monkeypatch.setattr(_machine.sys, 'platform', 'linux')
    monkeypatch.setattr(_machine, 'usable_cores', lambda: {0, 1})
    assert OtherProcesses().warning(2) == (
        'warning: other processes keep 1.5 of 2 cores busy (most of all python, pid 8); this one may run many '
        'times slower, because its threads wait for each other: stop them, or set OMP_NUM_THREADS=1'
    )


@pytest.mark.parametrize(
    ('busy', 'threads', 'platform'), [(0.4, 2, 'linux'), (1.0, 1, 'linux'), (1.0, 3, 'linux'), (2.0, 4, 'darwin')]
)
def test_no_warning_while_there_are_cores_for_all_threads(
    busy: float, threads: int, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_machine.sys, 'platform', platform)
    monkeypatch.setattr(_machine, 'usable_cores', lambda: {0, 1, 2, 3})
    others = OtherProcesses()
    monkeypatch.setattr(others, 'busy_cores', lambda: busy)
    assert others.warning(threads) is None


def test_time_of_a_running_child_is_own_and_not_that_of_others() -> None:
    code = 'import time\nwhile time.process_time() < 1: pass\nprint("done", flush=True)\nimport sys\nsys.stdin.read()'
    before = _machine.own_seconds()
    with subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b'done\n'
        assert _machine.own_seconds() - before > 0.9
        others = _machine.seconds_of_others()
        assert child.pid not in [pid for pid, _ in others]
        assert os.getppid() in [pid for pid, _ in others]
        child.stdin.close()


def test_clocks_count_the_time_of_a_finished_child() -> None:
    busy, own = _machine.busy_seconds(), _machine.own_seconds()
    subprocess.run([sys.executable, '-c', 'import time\nwhile time.process_time() < 1: pass'], check=True)
    assert _machine.busy_seconds() - busy > 0.9
    assert _machine.own_seconds() - own > 0.9


def test_device_name_ends_with_the_number_of_threads() -> None:
    name, threads = device_name('cpu').split(', ')
    assert name
    assert threads == f'{torch.get_num_threads()} threads'


PEAK_OF_256_MIB = """
import _peak
_peak.fork()
import _measure, torch

class Model(torch.nn.Module):
    def forward(self, x):
        torch.ones(2**26)
        return ()

_measure._build = lambda *_: Model()
print(_measure.measure_peak(_measure.Case('pvt-t', 'auto', 'forward', 32, 32, 1, 'float32', 'cpu', False)))
"""


@pytest.mark.slow
def test_peak_is_that_of_the_model_alone() -> None:
    """Neither the memory of the process that starts the measurement counts nor that of the libraries."""
    ballast = np.ones(2**29, np.uint8)
    done = run_python(PEAK_OF_256_MIB)
    assert len(ballast) == 2**29
    assert float(done.stdout) == pytest.approx(256, rel=0.1), done.stderr


@pytest.mark.parametrize(('end', 'status'), [('sys.exit(3)', 3), ('os.kill(os.getpid(), 9)', 137), ('pass', 0)])
def test_fork_hands_on_the_exit_status(end: str, status: int) -> None:
    done = run_python(f'import os, sys, _peak\n_peak.fork()\nprint("done", flush=True)\n{end}')
    assert (done.returncode, done.stdout) == (status, 'done\n')
