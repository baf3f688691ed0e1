"""The smallest training: a linear layer and two numbers."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn


class Numbers(torch.utils.data.Dataset):
    """The samples (1,) 0 and 1."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index)])


class Line(BaseModel):
    """One weight and one bias, whose output is to be 0."""

    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> Any:
        found = self.layer(torch.stack(list(inputs)) if isinstance(inputs, list) else inputs)
        return {'loss': found.square().mean()} if mode == 'loss' else [found]


class Rising(BaseMetric):
    """Better with each epoch."""

    default_prefix = 'x'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        return {'acc': float(MessageHub.get_current_instance().get_info('epoch'))}


def runner(work_dir: Path, epochs: int = 1, hooks: Sequence[Hook] = (), **kwargs: Any) -> Runner:
    """Return a training that saves each epoch; ``checkpoint`` has arguments of its ``CheckpointHook``."""
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers())
    torch.manual_seed(0)
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        val_evaluator=Evaluator(Rising()),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, **kwargs.pop('checkpoint', {}))),
        custom_hooks=[*hooks],
        experiment_name=f'toy_{time.monotonic_ns()}',
        **kwargs,
    )
