"""Processes of a training: workers of dataloaders ignore signals and end with it, forked ones end on SIGTERM."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from running import ROOT

from deformable_vit.engine.stopping import StopHook

TRAINING = """
import sys
from deformable_vit.engine.stopping import protect_workers
from mmengine.runner import Runner
from mmengine.registry import FUNCTIONS

FUNCTIONS.register_module(module=list, name='batch_as_it_is')
loader = dict(
    dataset=[1, 2, 3, 4], sampler=dict(type='DefaultSampler', shuffle=False),
    batch_size=2, num_workers=1, persistent_workers=True, collate_fn=dict(type='batch_as_it_is'),
)
protect_workers(loader)
built = Runner.build_dataloader(loader)
print([list(batch) for batch in built], flush=True)
if sys.argv[1] == 'error':
    raise RuntimeError('out of memory')
"""


@pytest.mark.slow
@pytest.mark.parametrize(('end', 'status'), [('done', 0), ('error', 1)])
def test_persistent_workers_end_with_the_process(end: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, '-c', TRAINING, end], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1] == '[[1, 2], [3, 4]]'


@pytest.mark.parametrize('in_training', [False, True])
def test_forked_processes_end_on_sigterm_at_any_moment(in_training: bool) -> None:
    """Those of mmdet's evaluation, for example; the signal may arrive before Python runs in the process."""
    hook: Any = StopHook(grace=60)
    fork = multiprocessing.get_context('fork')
    with hook.listening():
        hook.runner = object() if in_training else None
        processes = []
        for delay in (0.0, 0.001, 0.005, 0.02, 0.1):
            processes += [fork.Process(target=time.sleep, args=(60,)) for _ in range(10)]
            for process in processes[-10:]:
                process.start()
                time.sleep(delay)
                process.terminate()
        for process in processes:
            process.join(10)
        assert [process.exitcode for process in processes] == [-signal.SIGTERM] * len(processes)
    assert hook.received == 0


def test_forked_processes_leave_ctrl_c_to_the_training() -> None:
    hook: Any = StopHook(grace=60)
    with hook.listening():
        process = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))
        process.start()
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(1)
        assert process.is_alive()
        process.terminate()
        process.join(10)
    assert process.exitcode == -signal.SIGTERM


def test_forking_keeps_the_signal_mask() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    masks: list[set] = []

    def fork() -> None:
        process = multiprocessing.get_context('fork').Process(target=time.sleep, args=(0,))
        process.start()
        process.join()
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    with StopHook(grace=60).listening():
        fork()
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    assert masks == [before, before]
