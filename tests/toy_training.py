"""A training of two seconds for tests that kill it: random augmentation, dropout, optimizer, schedule, evaluation."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.runner.runner
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor, nn

from deformable_vit.apis.command_line import one_line_errors
from deformable_vit.apis.train import make_reliable
from deformable_vit.apis.train import train as train_config
from deformable_vit.checkpoints import read_checkpoint

ITERATIONS = 24  # in epochs of 6


@MODELS.register_module()
class ToyModel(BaseModel):
    """Two layers.

    Args:
        die_at: Training steps after which the process is killed, within ``die_within`` seconds.
        stop_at: Training steps after which the process gets a signal, ``(step, signal)``.
        pause: Seconds of a step.
        count_evaluation: Count batches of evaluation as steps, too.
    """

    def __init__(
        self,
        die_at: int = 0,
        die_within: float = 0.0,
        stop_at: tuple[int, int] = (0, 0),
        pause: float = 0.0,
        count_evaluation: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 1))
        self.count_evaluation = count_evaluation
        self.die_at, self.die_within, self.stop_at, self.pause, self.steps = die_at, die_within, stop_at, pause, 0

    def forward(self, inputs: list[Tensor], mode: str = 'tensor') -> Any:
        x = inputs if isinstance(inputs, Tensor) else torch.stack(inputs)
        if mode == 'loss' or self.count_evaluation:
            self.steps += 1
            if self.steps == self.die_at:
                threading.Timer(self.die_within, os.kill, [os.getpid(), signal.SIGKILL]).start()
            if self.steps == self.stop_at[0]:
                # As a terminal and Slurm do: another process sends it to this one and to its workers.
                subprocess.run(['kill', f'-{int(self.stop_at[1])}', '--', f'-{os.getpgrp()}'], start_new_session=True)
            time.sleep(self.pause)
        if mode == 'loss':
            x = x + np.random.rand() * random.random()  # augmentation of batches, in the main process
            return dict(loss=self.layers(x).square().mean())
        return [dict(value=v) for v in self.layers(x)]


@DATASETS.register_module()
class ToyDataset(BaseDataset):
    """Samples with noise of each of the three generators."""

    def load_data_list(self) -> list[dict]:
        return [dict(number=i) for i in range(24)]

    def __getitem__(self, index: int) -> dict:
        if not self.test_mode:
            noise = random.random() + np.random.rand() + torch.rand(()).item()
        else:  # an evaluation that uses random numbers does not change the training
            noise = np.random.rand() + torch.rand(()).item()
        return dict(inputs=torch.arange(8.0) * noise + index)


@METRICS.register_module()
class ToyMetric(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [sample['value'].item() for sample in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return dict(acc=float(np.mean(results)))


def toy_config(
    work_dir: Path,
    *,
    by_epoch: bool = True,
    workers: int = 0,
    keep: int = 1,
    model: dict[str, Any] | None = None,
    **more: Any,
) -> Config:
    """Return a config: 4 epochs of 6 iterations with a checkpoint each, or 24 iterations with one after each 5."""
    loader = dict(batch_size=4, num_workers=workers, persistent_workers=workers > 0)
    sampler = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True)
    train = dict(by_epoch=True, max_epochs=4, val_interval=1)
    if not by_epoch:
        train = dict(by_epoch=False, max_iters=ITERATIONS, val_interval=8)
    return Config(
        dict(
            default_scope='mmengine',
            work_dir=str(work_dir),
            model=dict(type='ToyModel', **(model or {})),
            train_cfg=train,
            train_dataloader=dict(dataset=dict(type='ToyDataset'), sampler=sampler, **loader),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01)),
            param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2)],
            val_cfg=dict(),
            val_dataloader=dict(
                dataset=dict(type='ToyDataset', test_mode=True), sampler=dict(type='DefaultSampler'), **loader
            ),
            val_evaluator=dict(type='ToyMetric'),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(
                    type='CheckpointHook', interval=1 if by_epoch else 5, by_epoch=by_epoch, max_keep_ckpts=keep
                ),
            ),
            randomness=dict(seed=3),
            **more,
        )
    )


def train(config: Config, resume: bool = True, grace: float = 30) -> None:
    """Train like ``tools/train.py --resume``."""
    config.resume = resume
    make_reliable(config, grace)
    train_config(config, 'toy.py')


def start(function: Callable[[], None], log: Path) -> int:
    """Run a function as the program ``train.py CONFIG`` in a process of its own; return its id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        mmengine.runner.runner.collect_env = dict  # it starts compilers to ask for their versions
        with log.open('ab', buffering=0) as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(n, 'w', buffering=1, closefd=False) for n in (1, 2))
        sys.argv = ['train.py', 'toy.py']
        signal.signal(signal.SIGINT, signal.default_int_handler)
        one_line_errors(function)()
        status = 0
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:  # for the test to read
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid: int) -> int:
    """Return the exit status of a process, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def final_weights(work_dir: Path, iterations: int = ITERATIONS) -> dict[str, Tensor]:
    """Return the weights of a complete training."""
    checkpoint = read_checkpoint(Path(work_dir, 'last_checkpoint').read_text())
    assert checkpoint['meta']['iter'] == iterations
    return checkpoint['state_dict']


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []
