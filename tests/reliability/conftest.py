from functools import partial

import pytest
import torch
from toy_training import final_weights, start, toy_config, train, wait


@pytest.fixture(scope='session')
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, torch.Tensor]]:
    """Weights of unbroken trainings, by epoch and by iteration, without workers."""
    found = {}
    for by_epoch in (True, False):
        work_dir = tmp_path_factory.mktemp('unbroken')
        assert wait(start(partial(train, toy_config(work_dir, by_epoch=by_epoch)), work_dir / 'log')) == 0
        found[by_epoch] = final_weights(work_dir)
    return found
