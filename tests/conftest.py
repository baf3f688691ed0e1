import os

import pytest
import torch

import deformable_vit  # noqa: F401  registers the backbones

# Processes of many threads each on two cores spin more than they compute: the cores are shared among the workers.
_CORES, _WORKERS = os.cpu_count() or 1, int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
os.environ.setdefault('OMP_NUM_THREADS', str(max(1, min(4, _CORES // _WORKERS))))
torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
