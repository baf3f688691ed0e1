"""Checkpoints hold nothing that torch refuses to load without this package."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub

from deformable_vit.engine.plain_checkpoint import PlainCheckpointHook, plain

RUNNER = SimpleNamespace()


def message_hub() -> MessageHub:
    hub = MessageHub.get_instance('plain')
    for i in range(3):
        hub.update_scalar('train/loss', torch.tensor(1.5 - i), 2)
        hub.update_scalar('train/lr', np.float64(0.1))
    hub.update_info('best_score', np.float32(0.25))
    hub.update_info('cfg', 'text')
    return hub


def checkpoint() -> dict:
    return dict(
        meta=dict(dataset_meta=ConfigDict(classes=('a', 'b'), palette=np.array([[1, 2, 3]])), work_dir=Path('run')),
        state_dict=torch.nn.BatchNorm2d(2).state_dict(),
        message_hub=message_hub().state_dict(),
        optimizer=dict(state={0: dict(step=torch.tensor(1.0))}, param_groups=[dict(lr=np.float64(0.5), params=[0])]),
    )


@pytest.mark.slow
def test_saved_checkpoint_loads_with_torch_alone(tmp_path: Path) -> None:
    saved = checkpoint()
    PlainCheckpointHook().before_save_checkpoint(RUNNER, saved)
    torch.save(saved, tmp_path / 'plain.pth')
    torch.save(checkpoint(), tmp_path / 'mmengine.pth')
    code = """
import sys, torch
c = torch.load('plain.pth', weights_only=True)
print(c['message_hub']['log_scalars']['train/loss']['log_history'].tolist())
print(c['meta']['dataset_meta']['palette'].tolist(), c['optimizer']['param_groups'][0]['lr'])
print({'mmengine', 'deformable_vit'} & set(sys.modules))
torch.load('mmengine.pth', weights_only=True)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ['[1.5, 0.5, -0.5]', '[[1, 2, 3]] 0.5', 'set()'], done.stderr[-2000:]
    assert 'UnpicklingError' in done.stderr  # what mmengine saves by itself


def test_history_of_the_log_is_restored() -> None:
    saved = checkpoint()
    hook = PlainCheckpointHook()
    hook.before_save_checkpoint(RUNNER, saved)
    assert saved['state_dict']._metadata
    hook.after_load_checkpoint(RUNNER, saved)
    resumed = MessageHub.get_instance('resumed')
    resumed.load_state_dict(saved['message_hub'])
    before = message_hub()
    for name, buffer in resumed.log_scalars.items():
        assert isinstance(buffer, HistoryBuffer)
        for a, b in zip(buffer.data, MessageHub.get_instance('plain').log_scalars[name].data, strict=True):
            np.testing.assert_array_equal(a[:3], b[:3])
    assert set(resumed.log_scalars) == set(before.log_scalars) == {'train/loss', 'train/lr'}
    resumed.update_scalar('train/loss', 4.0)
    assert resumed.get_scalar('train/loss').current() == 4.0
    assert resumed.get_info('best_score') == 0.25


def test_old_and_bare_checkpoints_are_left_alone() -> None:
    old = checkpoint()
    buffers = dict(old['message_hub']['log_scalars'])
    PlainCheckpointHook().after_load_checkpoint(RUNNER, old)
    assert old['message_hub']['log_scalars'] == buffers
    bare = dict(weight=torch.ones(1))
    PlainCheckpointHook().after_load_checkpoint(RUNNER, bare)
    assert list(bare) == ['weight']


def test_plain_values() -> None:
    tensor = torch.ones(2)
    found = plain(dict(a=[np.int64(3), (np.True_, tensor)], b=np.array(['x']), c=None))
    assert found['a'][0] == 3
    assert type(found['a'][0]) is int
    assert found['a'][1][0] is True
    assert found['a'][1][1] is tensor
    assert found['b'] == ['x']
    assert found['c'] is None
