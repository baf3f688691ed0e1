"""Signals in the processes that a training forks, and the command that continues it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from running import ROOT

from deformable_vit.engine.hooks import StopHook
from deformable_vit.engine.hooks.stop import command_to_continue

WORKERS = """
import subprocess, sys, time
import torch
from types import SimpleNamespace
from deformable_vit.engine import StopHook

loader = torch.utils.data.DataLoader([1, 2, 3, 4], batch_size=2, num_workers=1, persistent_workers=True)
loop = SimpleNamespace(dataloader=loader)
StopHook().before_train(SimpleNamespace(work_dir='.', train_loop=loop, val_loop=None))
batches = iter(loader)
print(next(batches).tolist(), flush=True)
if sys.argv[1] == 'signal':
    for worker in torch.multiprocessing.active_children():
        subprocess.run(['kill', str(worker.pid)])  # by another process than the training, as Slurm does
    time.sleep(0.5)
print(next(batches).tolist(), flush=True)
if sys.argv[1] == 'error':
    raise RuntimeError('out of memory')
"""


@pytest.mark.slow
@pytest.mark.parametrize(('end', 'status'), [('done', 0), ('error', 1), ('signal', 0)])
def test_workers_ignore_a_signal_and_end_with_the_process(end: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, '-c', WORKERS, end], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines() == ['[1, 2]', '[3, 4]']


def test_forked_processes_end_on_sigterm_and_leave_ctrl_c_to_the_training() -> None:
    runner = SimpleNamespace(val_dataloader=[0], train_loop=None, val_loop=None)
    hook = StopHook(grace=60)
    before = signal.getsignal(signal.SIGTERM)
    hook.before_train(runner)
    try:
        process = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))
        process.start()
        time.sleep(0.2)
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(0.5)
        assert process.is_alive()
        process.terminate()
        process.join(10)
        assert process.exitcode == -signal.SIGTERM

        # While metrics are computed, also if the signal arrives before Python runs in the process.
        hook.after_val_iter(runner, 0)
        processes = [multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,)) for _ in range(20)]
        for process in processes:
            process.start()
            process.terminate()
        for process in processes:
            process.join(10)
        assert [process.exitcode for process in processes] == [-signal.SIGTERM] * len(processes)
        hook.after_val_epoch(runner)
        assert signal.getsignal(signal.SIGTERM) == hook._receive
    finally:
        hook.after_train(runner)
    assert hook.received == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_command_to_continue() -> None:
    for argv, command in (
        ('t/train.py c.py', 'python t/train.py c.py --resume'),
        ('t/train.py c.py --resume a.pth --work-dir w', 'python t/train.py c.py --work-dir w --resume'),
        ('t/train.py c.py --resume --amp', 'python t/train.py c.py --amp --resume'),
        ('t/train.py c.py --resume=a.pth', 'python t/train.py c.py --resume'),
    ):
        assert command_to_continue(argv.split(), {}) == command
    argv = ['t/train.py', 'c.py', '--launcher', 'pytorch', '--work-dir', 'w']
    environment = dict(TORCHELASTIC_RUN_ID='x', LOCAL_WORLD_SIZE='2')
    assert command_to_continue(argv, environment) == 'bash t/dist_train.sh c.py 2 --work-dir w --resume'
