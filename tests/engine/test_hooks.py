"""Bad samples, losses and checkpoints in a training of mmengine's own runner."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from torch import Tensor, nn

from deformable_vit.checkpoints import read_checkpoint
from deformable_vit.engine import (
    CheckpointMatchHook,
    FiniteLossHook,
    ResumableEpochBasedTrainLoop,
    SampleErrorHook,
    SeedHook,
)
from deformable_vit.errors import CheckpointError, UserError


@DATASETS.register_module()
class NumbersWithNames(BaseDataset):
    """Ten samples whose value is their index."""

    def load_data_list(self) -> list[dict[str, Any]]:
        return [dict(img_path=f'images/{i}.jpg', img_id=100 + i, value=float(i)) for i in range(10)]


@TRANSFORMS.register_module()
class ReadNumber:
    """A transform that cannot read the samples in ``bad``, and gets NaN for those in ``nan``."""

    def __init__(self, bad: tuple[int, ...] = (), nan: tuple[int, ...] = ()) -> None:
        self.bad, self.nan = bad, nan

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        number = int(data.pop('value'))
        data.pop('img_path')  # the error names it all the same
        if number in self.bad:
            raise OSError('image file is truncated')
        return dict(inputs=torch.full((2,), torch.nan if number in self.nan else number / 10))


@MODELS.register_module()
class LineWithNorm(BaseModel):
    def __init__(self, nan_gradient: bool = False) -> None:
        super().__init__()
        self.nan_gradient = nan_gradient
        self.norm = nn.BatchNorm1d(2)
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs: list[Tensor] | Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        if self.nan_gradient:
            return dict(loss=(0 * self.linear.weight.nan_to_num()).sum().sqrt())
        out = self.linear(self.norm(torch.stack(list(inputs)) if isinstance(inputs, list) else inputs))
        return dict(loss_fit=(out - 1).square().mean(), loss_size=[out.abs().mean()], accuracy=out.mean())


def build(
    work_dir: Path, hooks: list[Any], workers: int = 0, by_epoch: bool = True, resumable: bool = False, **read: Any
) -> Runner:
    kind = dict(by_epoch=True, max_epochs=2) if by_epoch else dict(by_epoch=False, max_iters=10)
    if resumable:
        kind = dict(type='ResumableIterBasedTrainLoop', max_iters=10)
    dataset = dict(type='NumbersWithNames', pipeline=[dict(type='ReadNumber', **read)])
    return Runner(
        model=dict(type='LineWithNorm'),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            num_workers=workers,
            persistent_workers=workers > 0,
            batch_sampler=dict(type='SeededBatchSampler') if resumable else None,
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=False),
            dataset=dict(type='ConcatDataset', datasets=[dataset]),
        ),
        train_cfg=kind,
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=hooks,
        randomness=dict(seed=0),
        experiment_name=work_dir.name,
        log_level='WARNING',
    )


@pytest.mark.parametrize(
    ('workers', 'by_epoch', 'resumable'),
    [
        (0, True, False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, True, False), (1, False, False), (1, False, True))
        ),
    ],
)
def test_a_bad_sample_is_named(tmp_path: Path, workers: int, by_epoch: bool, resumable: bool) -> None:
    runner = build(tmp_path, [SampleErrorHook()], workers, by_epoch, resumable, bad=(7,))
    with pytest.raises(UserError) as error:
        runner.train()
    expected = 'sample 7 (img_path images/7.jpg, image id 107): OSError: image file is truncated'
    assert expected in str(error.value).splitlines()[-1]


@pytest.mark.slow
def test_bad_samples_are_replaced_by_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runner = build(tmp_path, [SampleErrorHook('skip')], bad=(3, 7))
    runner.train()
    assert runner.iter == 10
    shown = ''.join(capsys.readouterr())
    assert 'skipped: sample 3 (img_path images/3.jpg, image id 103): OSError: image file is truncated' in shown
    with pytest.raises(UserError, match="'raise' or 'skip', got 'ignore'"):
        SampleErrorHook('ignore')


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    runner = build(tmp_path, [FiniteLossHook()], nan=(6,))
    with pytest.raises(UserError, match=r'iteration 4: the loss is not finite \(loss_\w+=nan, loss_\w+=nan\); lower'):
        runner.train()
    assert all(bool(parameter.isfinite().all()) for parameter in runner.model.parameters())
    assert not list(tmp_path.glob('*.pth'))


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """A finite loss may have gradients that are not."""
    runner = build(tmp_path, [FiniteLossHook()])
    runner.model.nan_gradient = True
    with pytest.raises(UserError, match='iteration 6: no checkpoint is saved, because it is refused: state_dict'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_hooks_change_no_bit_of_a_good_training(tmp_path: Path) -> None:
    plain = build(tmp_path / 'plain', [])
    plain.train()
    hooked = build(tmp_path / 'hooked', [SampleErrorHook(), FiniteLossHook()])
    hooked.train()
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, hooked.model.state_dict()[key]), key
    assert not hooked.model._forward_hooks


def test_random_numbers_follow_from_the_iteration(tmp_path: Path) -> None:
    runner = build(tmp_path, [])
    hook, found = SeedHook(), []
    for _ in range(2):
        hook.before_train_iter(runner, 0)
        found.append(torch.rand(3))
        torch.rand(5)
    assert torch.equal(*found)


def test_loops_need_seeded_batches(tmp_path: Path) -> None:
    runner = build(tmp_path, [])
    with pytest.raises(UserError, match='needs train_dataloader.batch_sampler=dict.*got BatchSampler'):
        ResumableEpochBasedTrainLoop(runner, runner.train_dataloader, max_epochs=1)


def test_only_complete_checkpoints_of_the_model_are_resumed(tmp_path: Path) -> None:
    build(tmp_path, []).train()
    whole = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    changes: dict[str, Any] = dict(
        optimizer=None,
        meta={},
        message_hub=None,
        state_dict={key: value for key, value in whole['state_dict'].items() if 'linear' not in key},
    )
    for key, value in changes.items():
        torch.save(whole | {key: value}, tmp_path / 'changed.pth')
        runner = build(tmp_path / f'resumed_{key}', [CheckpointMatchHook()])
        runner.cfg.load_from, runner.cfg.resume = str(tmp_path / 'changed.pth'), True
        content = read_checkpoint(tmp_path / 'changed.pth')
        expected = 'does not fit the model' if key == 'state_dict' else f'cannot be resumed: it has no {key}'
        with pytest.raises(UserError if key == 'state_dict' else CheckpointError, match=f'changed.pth {expected}'):
            runner.call_hook('after_load_checkpoint', checkpoint=content)


def test_pipelines_with_names_reach_worker_processes() -> None:
    from deformable_vit.engine.hooks.samples import NamingPipeline

    copied = pickle.loads(pickle.dumps(NamingPipeline(ReadNumber(bad=(1,)), skip=False)))
    assert copied.bad == (1,)
