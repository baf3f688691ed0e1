"""A long training does not need more and more memory. In the long form of the campaign only: short ones say nothing."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from running import ENVIRONMENT, ROOT

MINUTES = 30


def memory(process: psutil.Process) -> float:
    """Return the memory of a process and its workers, without what they share with others, in MB."""
    return sum(p.memory_full_info().uss for p in (process, *process.children(recursive=True))) / 1e6


@pytest.mark.slow
@pytest.mark.campaign('minutes of a training watched for memory', short=0, long=1)
def test_memory_of_a_training_stays_the_same(
    config: Callable[..., Path], tmp_path: Path, attempt: int, record_property: Callable[[str, object], None]
) -> None:
    """With worker processes, checkpoints and evaluation. Its first third is not counted: caches fill."""
    endless = 'train_cfg = dict(max_epochs=100000, val_interval=50)\n'
    endless += 'default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))\n'
    endless += 'train_dataloader = dict(num_workers=1, persistent_workers=True)'
    path = config('retinanet_pvtv2_shapes.py')
    (tmp_path / 'endless.py').write_text(f'_base_ = {str(path)!r}\n{endless}\n')
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), 'endless.py', '--work-dir', 'work']
    with (tmp_path / 'log').open('wb') as log:
        training = subprocess.Popen(
            command, cwd=tmp_path, env=ENVIRONMENT | {'OMP_NUM_THREADS': '1'}, stdout=log, stderr=subprocess.STDOUT
        )
    seen, began = [], time.monotonic()
    while (passed := time.monotonic() - began) < MINUTES * 60:
        time.sleep(5)
        assert training.poll() is None, (tmp_path / 'log').read_text()[-3000:]
        if passed > MINUTES * 20:
            seen.append(memory(psutil.Process(training.pid)))
    training.terminate()
    assert training.wait(60) == 143
    half = len(seen) // 2
    record_property('tried', MINUTES)
    print(f'memory in MB: {" ".join(f"{value:.0f}" for value in seen[::20])}')
    assert max(seen[half:]) < 1.02 * max(seen[:half])
