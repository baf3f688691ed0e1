"""The worker processes of dataloaders ignore signals, and end with the training nevertheless."""

import subprocess
import sys

import pytest
from running import ROOT

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
