import os

import pytest
import torch

import deformable_vit  # noqa: F401  registers the backbones

# Two processes of many threads each on two cores spin more than they compute.
os.environ.setdefault('OMP_NUM_THREADS', str(min(4, os.cpu_count() or 1)))
torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
