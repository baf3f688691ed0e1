"""Trainings in two parts with mmengine's own runner, and checkpoints that plain mmengine has written."""

from pathlib import Path

import pytest
import torch
from toy_training import toy_config

from deformable_vit.apis.train import make_reliable
from deformable_vit.checkpoints import read_checkpoint


def train(work_dir: Path, by_epoch: bool, **changes: object) -> dict[str, torch.Tensor]:
    from mmengine.runner import Runner

    config = toy_config(work_dir, by_epoch=by_epoch, keep=-1)
    config.merge_from_dict(changes)
    make_reliable(config)
    config.experiment_name = '_'.join(work_dir.parts[-2:]) + str(len(list(work_dir.glob('*'))))
    runner = Runner.from_cfg(config)
    runner.train()
    return runner.model.state_dict()


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_training_in_two_parts_is_one(tmp_path: Path, by_epoch: bool) -> None:
    unbroken = train(tmp_path / 'unbroken', by_epoch)
    half = tmp_path / 'unbroken' / ('epoch_2.pth' if by_epoch else 'iter_10.pth')
    resumed = train(tmp_path / 'resumed', by_epoch, load_from=str(half), resume=True)
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)
    assert not torch.equal(read_checkpoint(half)['state_dict']['layers.0.weight'], unbroken['layers.0.weight'])
    assert 'random_state' not in read_checkpoint(half)


def test_another_batch_size_starts_the_epoch_again(tmp_path: Path) -> None:
    """The position in an epoch of 6 batches says nothing about one of 4."""
    train(tmp_path / 'first', True, **{'train_cfg.max_epochs': 1})
    checkpoint = torch.load(tmp_path / 'first' / 'epoch_1.pth', weights_only=False)
    checkpoint['meta'].update(epoch=0, iter=3)  # as after a stop in the first epoch
    torch.save(checkpoint, tmp_path / 'stopped.pth')
    options = {'load_from': str(tmp_path / 'stopped.pth'), 'resume': True, 'train_cfg.max_epochs': 1}
    for size, iterations in ((4, 6), (6, 7)):
        train(tmp_path / str(size), True, **options, **{'train_dataloader.batch_size': size})
        assert read_checkpoint(tmp_path / str(size) / 'epoch_1.pth')['meta']['iter'] == iterations
