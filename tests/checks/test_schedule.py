"""Samplers without an end in trainings by epochs, and schedules by epochs in trainings by iterations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from toy_runner import Line, Numbers

from deformable_vit.apis.train import _StartHook
from deformable_vit.checks.schedule import check_schedule
from deformable_vit.errors import TrainingError, UserError


@DATA_SAMPLERS.register_module()
class _OwnInfiniteSampler(InfiniteSampler):
    pass


@DATA_SAMPLERS.register_module()
class _EndlessSampler(torch.utils.data.Sampler):
    """Endless, and unlike all of OpenMMLab's."""

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 0

    def __len__(self) -> int:
        return len(self.dataset)


def found(sampler: Any, scope: str = 'mmdet', loader: dict | None = None, **train_cfg: Any) -> list[str]:
    config = Config(
        dict(
            default_scope=scope, train_cfg=train_cfg, train_dataloader=dict(sampler=dict(type=sampler), **loader or {})
        )
    )
    return [f'{p.level}: {p}' for p in check_schedule(config)]


EPOCHS = (
    dict(type='EpochBasedTrainLoop'),
    dict(type=EpochBasedTrainLoop),
    dict(by_epoch=True),
    dict(type='deformable_vit.engine.ResumableEpochBasedTrainLoop'),
)


@pytest.mark.parametrize(
    'sampler',
    ['InfiniteSampler', InfiniteSampler, 'MultiSourceSampler', 'GroupMultiSourceSampler', _OwnInfiniteSampler],
)
def test_epochs_of_an_infinite_sampler_are_an_error(sampler: Any) -> None:
    for loop in EPOCHS:
        (line,) = found(sampler, **loop)
        assert line.startswith('error: ')
        assert 'InfiniteSampler' in line or 'MultiSourceSampler' in line
        assert 'EpochBasedTrainLoop' in line
        (line,) = found(sampler, loader=dict(batch_sampler=dict(type='AspectRatioBatchSampler')), **loop)
    assert not found(sampler, type='IterBasedTrainLoop')
    assert not found(sampler, by_epoch=False)


def test_evaluation_of_an_infinite_sampler_is_an_error() -> None:
    for name in ('val', 'test'):
        config = Config({'default_scope': 'mmseg', f'{name}_dataloader': dict(sampler=dict(type='InfiniteSampler'))})
        (problem,) = check_schedule(config)
        assert (problem.level, problem.kind.split('.')[0]) == ('error', f'{name}_dataloader')


def test_a_loop_with_the_length_of_the_other_is_an_error() -> None:
    for loop in (dict(type='EpochBasedTrainLoop', max_iters=9), dict(by_epoch=False, max_iters=9, max_epochs=3)):
        (line,) = found('DefaultSampler', **loop)
        assert line.startswith('error: ')
        assert '_delete_=True' in line


def test_samplers_with_an_end_are_accepted() -> None:
    for scope, names in (
        ('mmdet', ('DefaultSampler', 'ClassAwareSampler', 'TrackImgSampler')),
        ('mmpretrain', ('RepeatAugSampler',)),
    ):
        for name in names:
            for loop in (*EPOCHS, dict(by_epoch=False)):
                assert not found(name, scope, **loop)


def run(
    tmp_path: Path,
    sampler: str = 'DefaultSampler',
    hooks: tuple[Hook, ...] = (),
    batch: dict[str, Any] | None = None,
    **settings: Any,
) -> list[float]:
    """Train two numbers; return the learning rate of each iteration."""
    rates = []

    class Rates(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    loader = dict(batch_size=1, num_workers=0, sampler=dict(type=sampler), dataset=Numbers()) | (batch or {})
    Runner(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[Rates(), *hooks],
        experiment_name=f'schedule_{tmp_path.name}_{len(list(tmp_path.iterdir()))}',
        **settings,
    ).train()
    return rates


def test_a_sampler_that_no_check_knows_is_stopped(tmp_path: Path) -> None:
    assert not found('_EndlessSampler', by_epoch=True)
    with pytest.raises(TrainingError, match='an epoch of 2 batches has reached batch 5'):
        run(tmp_path, '_EndlessSampler', (_StartHook(),), train_cfg=dict(by_epoch=True, max_epochs=1))
    assert len(run(tmp_path, 'DefaultSampler', (_StartHook(),), train_cfg=dict(by_epoch=True, max_epochs=4))) == 8


def test_a_training_without_a_batch_is_an_error(tmp_path: Path) -> None:
    """mmengine's loop of epochs trains nothing, that of iterations never ends."""
    batch = dict(batch_size=3, drop_last=True, collate_fn=dict(type=lambda samples: samples[:1]))
    for loop in (dict(by_epoch=True, max_epochs=1), dict(by_epoch=False, max_iters=1)):
        with pytest.raises(UserError, match='no batch: 2 samples, batch_size=3'):
            run(tmp_path, 'DefaultSampler', (_StartHook(),), batch, train_cfg=loop)
    assert len(run(tmp_path, 'InfiniteSampler', (_StartHook(),), batch, train_cfg=loop)) == 1


STEPS = dict(type='MultiStepLR', milestones=[2], gamma=0.1)


@pytest.mark.parametrize(
    ('schedule', 'changes'),
    [
        (STEPS, False),
        (dict(STEPS, by_epoch=True), False),
        (dict(STEPS, by_epoch=False), True),
        (dict(STEPS, milestones=[1], end=3, by_epoch=True, convert_to_iter_based=True), True),
    ],
)
def test_schedulers_that_iterations_never_step_are_reported(tmp_path: Path, schedule: dict, changes: bool) -> None:
    rates = run(tmp_path, train_cfg=dict(by_epoch=False, max_iters=6), param_scheduler=[dict(schedule)])
    assert (rates[-1] != rates[0]) is changes
    config = Config(dict(train_cfg=dict(by_epoch=False), train_dataloader=dict(), param_scheduler=[schedule]))
    problems = list(check_schedule(config))
    assert bool(problems) is not changes
    assert all(p.level == 'warning' and 'param_scheduler.0' in p.kind for p in problems)


def test_checkpoints_by_epoch_of_iterations_come_at_the_end(tmp_path: Path) -> None:
    settings = dict(
        train_cfg=dict(by_epoch=False, max_iters=6),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2)),
    )
    run(tmp_path, **settings)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    (problem,) = check_schedule(Config(dict(settings, train_dataloader=dict())))
    assert 'default_hooks.checkpoint' in problem.kind
    settings['default_hooks']['checkpoint']['by_epoch'] = False
    assert not list(check_schedule(Config(dict(settings, train_dataloader=dict()))))


def test_schedulers_that_need_no_steps_are_accepted() -> None:
    for schedule in (
        [dict(type='ConstantLR', factor=1.0)],
        [dict(type='ReduceOnPlateauLR', monitor='x/acc')],
        dict(generator=[dict(STEPS, by_epoch=False)]),
    ):
        config = dict(train_cfg=dict(by_epoch=False), train_dataloader=dict(), param_scheduler=schedule)
        assert not list(check_schedule(Config(config)))
    config['param_scheduler'] = dict(generator=[STEPS])  # one of several optimizers
    (problem,) = check_schedule(Config(config))
    assert problem.kind.startswith('param_scheduler.generator.0 ')
