import os

import cores  # noqa: F401  before torch
import pytest
import torch

import deformable_vit  # noqa: F401  registers the backbones

torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
