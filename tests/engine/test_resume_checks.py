"""Training resumes from a checkpoint that is complete and of its own types, and says in one line what is missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from toy_runner import Line, Numbers

from deformable_vit.checkpoints import CheckpointError, read_checkpoint
from deformable_vit.engine.resume_checks import CheckpointContentHook


class Growing(torch.optim.SGD):
    """Has an infinite setting, as D-Adaptation and Prodigy do."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            group['growth_rate'] = float('inf')


SCHEDULER = dict(type='LinearLR', start_factor=0.1, begin=0, end=2)


def train(
    work_dir: Path,
    resume: Path | None = None,
    by_epoch: bool = True,
    hook: bool = True,
    optimizer: str | type = 'AdamW',
    scheduler: dict[str, Any] = SCHEDULER,
) -> Runner:
    runner = Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers()
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2) if by_epoch else dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type=optimizer, lr=0.1)),
        param_scheduler=[dict(by_epoch=by_epoch) | scheduler],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch)),
        load_from=str(resume) if resume else None,
        resume=resume is not None,
        cfg=dict(load_from=str(resume), resume=resume is not None),
        experiment_name=f'resume_{work_dir.name}',
    )
    if hook:
        runner.register_hook(CheckpointContentHook(), priority='LOWEST')
    runner.train()
    return runner


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('trained')
    train(path)
    return path


def changed(work_dir: Path, path: Path, key: str, value: Any) -> Path:
    """Write a checkpoint where a key such as ``optimizer.param_groups.0.lr`` has another value, or none (``...``)."""
    checkpoint = torch.load(work_dir / 'epoch_1.pth')
    *parents, last = [int(part) if part.isdigit() else part for part in key.split('.')]
    node = checkpoint
    for part in parents:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    ('key', 'value', 'problem'),
    [
        ('meta.epoch', 99, 'it is from epoch 99, and the config trains 2 epochs'),
        ('meta.epoch', ..., 'its meta has no epoch'),
        ('meta', ..., 'it has no meta'),
        ('message_hub', ..., 'it has no message_hub'),
        ('optimizer', ..., 'it has no optimizer'),
        ('optimizer.state', ..., 'its optimizer has no param_groups and state'),
        ('optimizer.param_groups', [], 'its optimizer has 0 param_groups, and that of the config 1'),
        ('optimizer.param_groups.0.lr', 'x', r"optimizer.param_groups\[0\].lr is 'x', not a finite number"),
        ('optimizer.param_groups.0.lr', float('nan'), 'lr is nan, not a finite number'),
        ('optimizer.param_groups.0.lr', ..., r'optimizer.param_groups\[0\] has no lr'),
        ('optimizer.param_groups.0.betas', (0.9, 'x'), r"betas\[1\] is 'x', not a finite number"),
        ('optimizer.param_groups.0.amsgrad', 'x', "amsgrad is 'x', not True or False"),
        ('optimizer.param_groups.0.params', [0], 'has 1 params, and that of the config 2'),
        ('optimizer.state.0.exp_avg', torch.ones(3), r'exp_avg has shape \(3,\), and the parameter has shape \(1, 1\)'),
        ('optimizer.state.0.step', 'x', "step is 'x', not a finite number"),
        ('optimizer.state.7', {}, 'the entry 7, and there are 2 parameters'),
        ('param_schedulers', ..., 'it has no param_schedulers'),
        ('param_schedulers', [], 'it has 0 param_schedulers, and the config 1'),
        ('param_schedulers.0', 3, r'param_schedulers\[0\] is 3'),
        ('param_schedulers.0.last_step', ..., r'param_schedulers\[0\] has no last_step'),
        ('param_schedulers.0.last_step', 'x', "last_step is 'x', not a finite number"),
        ('param_schedulers.0.step', 3, r'param_schedulers\[0\] replaces step of LinearLR'),
        ('param_schedulers.0.base_values', [0.1, 0.1], 'base_values is .*, not a list of 1'),
    ],
)
def test_what_resuming_needs_is_checked(work_dir: Path, tmp_path: Path, key: str, value: Any, problem: str) -> None:
    path = changed(work_dir, tmp_path / 'x.pth', key, value)
    with pytest.raises(CheckpointError, match=f'x.pth cannot be resumed: .*{problem}; resume from') as caught:
        train(tmp_path / 'out', path)
    assert str(caught.value).isprintable()
    assert not list((tmp_path / 'out').glob('*.pth'))


def test_iterations_beyond_the_end_are_refused(work_dir: Path, tmp_path: Path) -> None:
    path = changed(work_dir, tmp_path / 'x.pth', 'meta.iter', 5)
    with pytest.raises(CheckpointError, match='it is from iteration 5, and the config trains 4 iterations'):
        train(tmp_path / 'out', path, by_epoch=False)


@pytest.mark.parametrize('hook', [False, True], ids=['saved by mmengine', 'saved by this project'])
def test_a_resumed_training_ends_with_the_same_weights(work_dir: Path, tmp_path: Path, hook: bool) -> None:
    expected = read_checkpoint(str(work_dir / 'epoch_2.pth'))
    torch.manual_seed(0)
    started = tmp_path / 'start.pth'
    checkpoint = read_checkpoint(str(work_dir / 'epoch_1.pth'))
    if hook:
        checkpoint = torch.load(work_dir / 'epoch_1.pth')  # needs nothing but torch
        assert isinstance(checkpoint['message_hub']['log_scalars']['train/loss'], dict)
    torch.save(checkpoint, started)
    train(tmp_path / 'out', started)
    found = read_checkpoint(str(tmp_path / 'out' / 'epoch_2.pth'))
    assert torch.equal(found['state_dict']['layer.weight'], expected['state_dict']['layer.weight'])
    assert torch.equal(found['optimizer']['state'][0]['exp_avg'], expected['optimizer']['state'][0]['exp_avg'])
    # The histories go on where they were.
    logs = [state['message_hub']['log_scalars']['train/loss'].data[0] for state in (found, expected)]
    assert np.array_equal(*logs)
    assert len(logs[0]) == 4


@pytest.mark.parametrize(
    ('optimizer', 'scheduler'),
    [(Growing, SCHEDULER), ('SGD', dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False))],
    ids=['infinite settings', 'functions'],
)
def test_states_that_are_no_plain_numbers_are_resumed(
    tmp_path: Path, optimizer: str | type, scheduler: dict[str, Any]
) -> None:
    whole = train(tmp_path / 'whole', optimizer=optimizer, scheduler=scheduler)
    torch.load(tmp_path / 'whole' / 'epoch_1.pth', weights_only=True)
    resumed = train(tmp_path / 'new', tmp_path / 'whole' / 'epoch_1.pth', optimizer=optimizer, scheduler=scheduler)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
