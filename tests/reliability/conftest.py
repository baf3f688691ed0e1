import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from few_images import config, shapes  # noqa: F401  fixtures
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop
from toy_training import final_weights, start, toy_config, train, wait

from deformable_vit.checkpoints import CheckpointError
from deformable_vit.engine import UserError, adapt_to_device, load_config, run, set_work_dir
from deformable_vit.engine.options import common_arguments


@pytest.fixture
def start_with(tmp_path: Path, config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:  # noqa: F811
    """Do what ``tools/train.py --cfg-options OPTION`` does, up to the first iteration, and return the error's line.

    It is ``training started`` if there is no other error.
    """

    def first_iteration(_loop: object) -> None:
        raise UserError('training started')

    monkeypatch.setattr(EpochBasedTrainLoop, 'run', first_iteration)
    path = config('retinanet_pvtv2_shapes.py')
    read = Config.fromfile(path)
    monkeypatch.setattr(Config, 'fromfile', lambda _: copy.deepcopy(read))  # reading it takes as long as all the rest

    def start(option: str) -> None:
        parser = argparse.ArgumentParser()
        common_arguments(parser)
        args = parser.parse_args(['--cfg-options', option] if option else [])
        loaded = load_config(str(path), args.cfg_options)
        set_work_dir(loaded, str(path), str(tmp_path / 'work'))
        adapt_to_device(loaded, 'none')
        run(loaded, str(path), 'train')

    def line(option: str) -> str:
        with pytest.raises((UserError, CheckpointError)) as caught:
            start(option)
        assert str(caught.value).isprintable()
        return str(caught.value)

    return line


@pytest.fixture(scope='session')
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, torch.Tensor]]:
    """Weights of unbroken trainings, by epoch and by iteration, without workers."""
    found = {}
    for by_epoch in (True, False):
        work_dir = tmp_path_factory.mktemp('unbroken')
        assert wait(start(partial(train, toy_config(work_dir, by_epoch=by_epoch)), work_dir / 'log')) == 0
        found[by_epoch] = final_weights(work_dir)
    return found
