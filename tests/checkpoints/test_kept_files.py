"""A resumed training deletes its own checkpoints and nothing else, whatever the resumed file names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import Runner
from toy_runner import Line, Numbers

from deformable_vit.checkpoints.kept_files import forget_other_files, protect_other_files


class Rising(BaseMetric):
    """Better with each evaluation."""

    default_prefix = 'x'
    count = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        Rising.count += 1
        return {'acc': float(Rising.count)}


def train(work_dir: Path, epochs: int = 1, resume: Path | None = None, **checkpoint: Any) -> Runner:
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers())
    hook = dict(type='CheckpointHook', interval=1, **checkpoint)
    runner = Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        val_evaluator=Evaluator(Rising()),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=hook),
        load_from=str(resume) if resume else None,
        resume=resume is not None,
        experiment_name=f'kept_{work_dir.name}_{epochs}',
    )
    runner.train()
    return runner


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob('*.pth')}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A work directory with one epoch and the best checkpoint."""
    train(tmp_path / 'a', save_best='x/acc', max_keep_ckpts=1)
    assert files(tmp_path / 'a') == {'epoch_1.pth', 'best_x_acc_epoch_1.pth'}
    return tmp_path / 'a'


def test_training_goes_on_elsewhere_and_the_first_work_directory_stays(trained: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in trained.glob('*.pth')}
    other = tmp_path / 'b'
    other.mkdir()
    (other / 'epoch_1.pth').write_text('of another run')
    train(other, 2, trained / 'epoch_1.pth', save_best='x/acc', max_keep_ckpts=1)
    assert {path: path.read_bytes() for path in trained.glob('*.pth')} == before
    assert files(other) == {'epoch_1.pth', 'epoch_2.pth', 'best_x_acc_epoch_2.pth'}
    assert (other / 'epoch_1.pth').read_text() == 'of another run'


def test_training_goes_on_in_place_and_deletes_what_it_replaces(trained: Path) -> None:
    train(trained, 2, trained / 'epoch_1.pth', save_best='x/acc', max_keep_ckpts=1)
    assert files(trained) == {'epoch_2.pth', 'best_x_acc_epoch_2.pth'}


@pytest.mark.parametrize('key', ['best_ckpt', 'last_ckpt'])
@pytest.mark.parametrize('several', [False, True])
def test_a_checkpoint_that_names_a_directory_does_not_delete_it(
    trained: Path, tmp_path: Path, key: str, several: bool
) -> None:
    victim = tmp_path / 'home' if not several else tmp_path / 'home.pth'
    victim.mkdir()
    (victim / 'thesis.txt').write_text('years of work')
    checkpoint = torch.load(trained / 'epoch_1.pth', weights_only=False)
    info, hub = checkpoint['message_hub']['runtime_info'], checkpoint['message_hub']
    info.update({key: str(victim), 'best_score': -1.0, 'keep_ckpt_ids': ['../../home', 0, 1]})
    if several:
        info.update({'best_ckpt_x/acc': str(victim), 'best_score_x/acc': -1.0, 'best_ckpt_x/loss': str(victim)})
    hub['resumed_keys'].update(dict.fromkeys(info, True))
    attack = trained / 'attack.pth'
    torch.save(checkpoint, attack)
    train(trained, 2, attack, save_best=['x/acc'] if several else 'x/acc', max_keep_ckpts=1)
    assert (victim / 'thesis.txt').read_text() == 'years of work'


@pytest.mark.parametrize(
    'path', ['/etc', '/etc/x.pth', 'A/../../x.pth', 'A/sub/x.pth', 'A/x.txt', 'A/dir.pth', 'A/link.pth', 3, 'A/\0.pth']
)
def test_only_checkpoints_of_the_work_directory_are_kept(tmp_path: Path, path: object) -> None:
    directory, outside = tmp_path / 'A', tmp_path / 'outside'
    (directory / 'dir.pth').mkdir(parents=True)
    outside.mkdir()
    (directory / 'link.pth').symlink_to(outside)
    path = path.replace('A/', f'{directory}/') if isinstance(path, str) else path
    own = str(directory / 'epoch_1.pth')
    info = {'best_ckpt': path, 'best_score': 0.5, 'best_ckpt_y': own, 'best_score_y': 1, 'last_ckpt': own, 'iter': 1}
    assert len(forget_other_files(info, str(directory), 'epoch_{}.pth')) == 1
    assert info == {'best_ckpt_y': own, 'best_score_y': 1, 'last_ckpt': own, 'iter': 1}


def test_object_storage_keeps_its_own_checkpoints() -> None:
    info = {'best_ckpt': 's3://bucket/run/best.pth', 'best_score': 1.0, 'last_ckpt': 's3://bucket/other/epoch_1.pth'}
    assert forget_other_files(info, 's3://bucket/run', 'epoch_{}.pth') == ['last_ckpt s3://bucket/other/epoch_1.pth']
    assert info == {'best_ckpt': 's3://bucket/run/best.pth', 'best_score': 1.0}


def test_kept_numbers_are_those_of_this_directory(tmp_path: Path) -> None:
    last, numbers = str(tmp_path / 'epoch_9.pth'), [1, '2', True, -3, 4]
    info: dict[str, Any] = {'last_ckpt': last, 'keep_ckpt_ids': numbers}
    assert forget_other_files(info, str(tmp_path), 'epoch_{}.pth', last) == []
    assert info['keep_ckpt_ids'] == [1, 4]
    info = {'last_ckpt': last, 'keep_ckpt_ids': numbers}
    assert len(forget_other_files(info, str(tmp_path), 'epoch_{}.pth', '/other/epoch_9.pth')) == 1
    assert 'keep_ckpt_ids' not in info


def test_protecting_twice_changes_nothing() -> None:
    from mmengine.hooks import CheckpointHook

    before = CheckpointHook.before_train
    protect_other_files()
    assert CheckpointHook.before_train is before
