"""The smallest training: a linear layer and two numbers."""

from typing import Any

import torch
from mmengine.model import BaseModel
from torch import nn


class Numbers(torch.utils.data.Dataset):
    """The samples (1,) 0 and 1."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index)])


class Line(BaseModel):
    """One weight and one bias, whose output is to be 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> Any:
        found = self.layer(torch.stack(list(inputs)) if isinstance(inputs, list) else inputs)
        return {'loss': found.square().mean()} if mode == 'loss' else [found]
