"""A training that is killed or stopped at any moment, and resumed, ends with the weights of an unbroken one."""

import random
import re
import signal
from functools import partial
from pathlib import Path

import pytest
from toy_training import assert_equal, final_weights, start, toy_config, train, wait

from deformable_vit.checkpoints import read_checkpoint

pytestmark = pytest.mark.slow
KILLS = 2  # of each training


@pytest.mark.campaign('kills of a training', short=1, long=5)
@pytest.mark.parametrize(('by_epoch', 'workers'), [(True, 2), (False, 0), (False, 2)])
def test_kills_at_random_moments_change_no_bit(
    unbroken, tmp_path: Path, by_epoch: bool, workers: int, attempt: int, record_property
) -> None:
    draw = random.Random(f'{by_epoch} {workers} {attempt}')
    record_property('tried', KILLS)
    kills = 0
    while True:
        die_at = draw.randint(7, 11)  # after a checkpoint, and so that two fit into the training
        model = dict(die_at=die_at, die_within=draw.uniform(0, 0.02)) if kills < KILLS else {}
        config = toy_config(tmp_path, by_epoch=by_epoch, workers=workers, model=model)
        status = wait(start(partial(train, config), tmp_path / 'log'))
        if status == 0:
            break
        assert status == -signal.SIGKILL, (tmp_path / 'log').read_text()[-3000:]
        kills += 1
    assert kills == KILLS
    assert re.search(r'resumed epoch: \d+, iter: [1-9]', (tmp_path / 'log').read_text())
    assert_equal(final_weights(tmp_path), unbroken[by_epoch])


@pytest.mark.parametrize(
    ('number', 'by_epoch', 'workers'),
    [(signal.SIGTERM, True, 2), (signal.SIGINT, True, 0), (signal.SIGTERM, False, 0), (signal.SIGINT, False, 2)],
)
def test_signal_saves_the_running_iteration(
    unbroken, tmp_path: Path, number: signal.Signals, by_epoch: bool, workers: int
) -> None:
    for step in (4, 5):  # 4 iterations, then 5 more: in the middle of the first and the second epoch
        config = toy_config(tmp_path, by_epoch=by_epoch, workers=workers, model=dict(stop_at=(step, number)))
        assert wait(start(partial(train, config), tmp_path / 'log')) == 128 + number
        done = 4 if step == 4 else 9
        epoch = f'epoch_{done // 6}_' if by_epoch else ''
        file = tmp_path / f'interrupted_{epoch}iter_{done}.pth'
        last = (tmp_path / 'log').read_text().splitlines()[-1]
        assert last == (
            f'train.py: stopped by {number.name} after iteration {done}; the last checkpoint is {file}; '
            'continue with: python train.py toy.py --resume'
        )
        assert read_checkpoint(file)['meta']['iter'] == done
    assert wait(start(partial(train, toy_config(tmp_path, by_epoch=by_epoch)), tmp_path / 'log')) == 0
    assert_equal(final_weights(tmp_path), unbroken[by_epoch])
    assert not list(tmp_path.glob('interrupted_*'))


def test_grace_period_ends_a_long_iteration(tmp_path: Path) -> None:
    config = toy_config(tmp_path, model=dict(stop_at=(8, signal.SIGTERM), pause=0.2))
    assert wait(start(partial(train, config, grace=0.05), tmp_path / 'log')) == 143
    assert 'without a new checkpoint (the end of the iteration took more than 0.05 s)' in (tmp_path / 'log').read_text()
    assert f'the last checkpoint is {tmp_path}/epoch_1.pth' in (tmp_path / 'log').read_text()


def test_a_stop_in_an_evaluation_continues_after_it(tmp_path: Path) -> None:
    """The signal arrives in the evaluation after the first epoch, in which EMAHook has exchanged the weights."""
    ema = dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)])
    never = {'default_hooks.checkpoint.interval': 4}  # no checkpoint before the evaluation
    for name, model in (('unbroken', {}), ('stopped', dict(stop_at=(7, signal.SIGTERM), count_evaluation=True))):
        config = toy_config(tmp_path / name, model=model, **ema)
        config.merge_from_dict(never)
        status = wait(start(partial(train, config), tmp_path / 'log'))
        assert status == (143 if model else 0), (tmp_path / 'log').read_text()[-2000:]
    assert 'stopped by SIGTERM after iteration 6' in (tmp_path / 'log').read_text()
    config = toy_config(tmp_path / 'stopped', **ema)
    config.merge_from_dict(never)
    assert wait(start(partial(train, config), tmp_path / 'log')) == 0
    assert_equal(final_weights(tmp_path / 'stopped'), final_weights(tmp_path / 'unbroken'))
