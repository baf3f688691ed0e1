"""A checkpoint that runs code is refused by everything in mmengine that reads one, also where mmengine would retry."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import mmengine.runner.checkpoint
import pytest
import torch
from hostile_files import write_hostile
from mmengine.config import ConfigDict
from mmengine.infer import BaseInferencer
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch import nn

from deformable_vit.checkpoints import CheckpointError


class Attack:
    """Write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


class Model(BaseModel):
    """The smallest model that a Runner takes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs: torch.Tensor, **_kwargs: object) -> torch.Tensor:
        return self.layer(inputs)


def runner(path: str, **kwargs: object) -> Runner:
    return Runner(Model(), work_dir=str(Path(path).parent), experiment_name='doors', **kwargs)


def load_or_resume(path: str, *, resume: bool) -> None:
    runner(path, load_from=path, resume=resume).load_or_resume()


def initialize(path: str) -> None:
    MODELS.build(dict(type='PVTv2', arch='b0', init_cfg=dict(type='Pretrained', checkpoint=path))).init_weights()


def initialize_a_part(path: str) -> None:
    """As a backbone of a whole model's checkpoint."""
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone')
    MODELS.build(dict(type='PVTv2', arch='b0', init_cfg=init_cfg)).init_weights()


def inferencer(path: str) -> None:
    """The inferencers of mmdet, mmseg and mmpretrain, without a config: mmengine evaluates one from the file."""
    BaseInferencer._init_model(None, ConfigDict(), path)


def named_model(path: str) -> None:
    """A file that ``open_mmlab.json`` in mmengine's own directory names."""
    CheckpointLoader.load_checkpoint(f'open-mmlab://{Path(path).stem}')


DOORS: dict[str, Callable[[str], object]] = {
    'CheckpointLoader': CheckpointLoader.load_checkpoint,
    'load_checkpoint': lambda path: load_checkpoint(nn.Linear(1, 1), path),
    'Runner.load_checkpoint': lambda path: runner(path).load_checkpoint(path),
    'Runner.resume': lambda path: runner(path).resume(path),
    'load_from': lambda path: load_or_resume(path, resume=False),
    'resume': lambda path: load_or_resume(path, resume=True),
    'init_cfg': initialize,
    'init_cfg with a prefix': initialize_a_part,
    'open-mmlab://': named_model,
    'inferencer': inferencer,
}


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / 'attack.pth'
    torch.save({'state_dict': {'x': torch.zeros(1)}, 'attack': Attack(tmp_path / 'victim')}, path)
    (tmp_path / 'open_mmlab.json').write_text(json.dumps({'attack': 'attack.pth'}))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    return path


@pytest.mark.parametrize('door', DOORS)
def test_every_door_refuses_a_checkpoint_that_runs_code(attack: Path, door: str) -> None:
    with pytest.raises(CheckpointError, match=r'attack.pth is refused: it needs pathlib'):
        DOORS[door](str(attack))
    assert not (attack.parent / 'victim').exists()


@pytest.mark.parametrize(
    'name', ['object array', 'NaN', 'storage beyond the file', 'name with an escape code', 'empty']
)
def test_every_door_gives_the_same_line(attack: Path, name: str) -> None:
    pattern = write_hostile(name, attack)
    lines = set()
    for door in DOORS.values():
        with pytest.raises(CheckpointError, match=pattern) as caught:
            door(str(attack))
        assert str(caught.value).isprintable()
        lines.add(str(caught.value).partition('; the README.md')[0])  # what init_cfg adds
    assert len(lines) == 1


def test_inferencers_do_not_run_a_config_from_a_checkpoint(attack: Path) -> None:
    program = f'import pathlib\npathlib.Path({str(attack.parent / "victim")!r}).touch()'
    hub = dict(log_scalars={}, runtime_info=dict(cfg=program), resumed_keys={})
    torch.save(dict(state_dict={'x': torch.ones(1)}, message_hub=hub, meta=dict(cfg=program)), attack)
    with pytest.raises(ValueError, match='Cannot find the config in the checkpoint'):
        inferencer(str(attack))
    assert not (attack.parent / 'victim').exists()


@pytest.mark.skipif(not hasattr(mmengine.runner.checkpoint, '_safe_torch_load'), reason='only in onedl-mmengine')
@pytest.mark.parametrize('opened', [False, True])
def test_mmengine_of_the_fork_does_not_retry_unsafely(attack: Path, opened: bool) -> None:
    """Its loaders of paths and of bytes from object storage share one function."""
    file = io.BytesIO(attack.read_bytes()) if opened else attack
    with pytest.raises(CheckpointError, match=rf'{"in memory" if opened else "attack.pth"} is refused'):
        mmengine.runner.checkpoint._safe_torch_load(file, map_location='cpu')
    assert not (attack.parent / 'victim').exists()

    good = io.BytesIO()
    torch.save({'state_dict': {'x': torch.ones(1)}}, good)
    good.seek(0)
    assert mmengine.runner.checkpoint._safe_torch_load(good)['state_dict']['x'].item() == 1
