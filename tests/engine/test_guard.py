"""Bad samples and numbers in a training: one line, and a checkpoint of the iterations before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from deformable_vit.engine import UserError
from deformable_vit.engine.guard import Policy, guarded
from deformable_vit.engine.resuming import Continuation


@DATASETS.register_module(force=True)
class _Numbers(BaseDataset):
    """Samples whose value is their index; those in ``bad`` cannot be read, those in ``nan`` are not finite."""

    def __init__(self, n: int, bad: tuple[int, ...] = (), nan: tuple[int, ...] = (), divisor: int = 0) -> None:
        self.n, self.bad, self.nan, self.divisor = n, bad, nan, divisor or n
        super().__init__()

    def load_data_list(self) -> list[dict[str, Any]]:
        return [dict(img_path=f'images/{i}.jpg', img_id=100 + i, value=float(i)) for i in range(self.n)]

    def prepare_data(self, idx: int) -> Any:
        info = self.get_data_info(idx)
        if idx in self.bad:
            raise OSError('image file is truncated')
        value = torch.full((2,), torch.nan if idx in self.nan else info['value'] / self.divisor)
        return dict(inputs=value)


@MODELS.register_module(force=True)
class _Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs: list[Tensor] | Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        out = self.linear(self.norm(torch.stack(list(inputs)) if isinstance(inputs, list) else inputs))
        return dict(loss_fit=(out - 1).square().mean(), loss_size=out.abs().mean())


def build(
    work_dir: Path, loader: Any = None, epochs: int = 2, lr: float = 0.1, hooks: Any = None, **data: Any
) -> Runner:
    batches = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='_Numbers', **data),
    )
    return Runner(
        model=dict(type='_Line'),
        work_dir=str(work_dir),
        train_dataloader=batches | (loader or {}),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=lr)),
        param_scheduler=dict(type='ConstantLR', factor=1.0, by_epoch=False),
        custom_hooks=hooks,
        randomness=dict(seed=0),
        experiment_name=work_dir.name,
        log_level='WARNING',
    )


def train(work_dir: Path, policy: Policy | None = None, **settings: Any) -> Runner:
    runner = build(work_dir, **settings)
    with guarded(runner, policy or Policy(), 'train'):
        runner.train()
    return runner


@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_bad_sample_is_named_after_a_checkpoint(tmp_path: Path, workers: int) -> None:
    with pytest.raises(UserError) as error:
        train(tmp_path, n=10, bad=(7,), loader=dict(num_workers=workers))
    saved = tmp_path / 'interrupted_epoch_0_iter_3.pth'
    assert str(error.value) == (
        'sample 7 (img_path images/7.jpg, image id 107): OSError: image file is truncated; '
        f'{saved} has the 3 iterations before, --resume continues from there'
    )
    assert (tmp_path / 'last_checkpoint').read_text() == str(saved)
    meta = torch.load(saved, weights_only=False)['meta']
    assert (meta['epoch'], meta['iter']) == (0, 3)


def test_training_resumed_after_a_bad_sample_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    def run(name: str, checkpoint: Path | None = None, bad: tuple[int, ...] = ()) -> dict[str, Tensor]:
        shuffled = dict(sampler=dict(type='DefaultSampler', shuffle=True))
        runner = build(tmp_path / name, shuffled, n=10, bad=bad)
        runner.cfg.train_cfg = dict(by_epoch=True)
        if checkpoint is not None:
            runner._load_from, runner._resume = str(checkpoint), True
        Continuation(Config(dict(load_from=runner._load_from, resume=runner._resume))).prepare(runner)
        with guarded(runner, Policy(), 'train'):
            runner.train()
        assert runner.iter == 10
        return runner.model.state_dict()

    with pytest.raises(UserError, match='sample 7'):
        run('stopped', bad=(7,))
    (saved,) = (tmp_path / 'stopped').glob('interrupted_*.pth')
    assert torch.load(saved, weights_only=False)['random_state']['batch'] == int(saved.stem.rpartition('_')[2]) > 0
    torch.testing.assert_close(run('resumed', saved), run('unbroken'), rtol=0, atol=0)


def test_bad_samples_are_replaced_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    policy = Policy(on_bad_sample='skip', max_bad_samples=1.0)
    runner = train(tmp_path, policy, n=10, bad=(3, 7))
    assert runner.iter == 10
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert 'skipped: sample 3 (img_path images/3.jpg, image id 103): OSError: image file is truncated' in text
    assert 'bad samples of this epoch were replaced by others' in text


def test_too_many_bad_samples_stop(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'2 samples of this epoch cannot be used, more than \S+max_bad_samples allows'):
        train(tmp_path, Policy(on_bad_sample='skip'), n=10, bad=(3, 7))


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        train(tmp_path, n=10, nan=(6,))
    saved = tmp_path / 'interrupted_epoch_0_iter_3.pth'
    line = str(error.value)
    assert line.startswith('iteration 4: the loss is not finite (')
    assert 'loss_fit=nan' in line
    assert f'{saved} has the 3 iterations before' in line
    after = torch.load(saved, weights_only=False)['state_dict']
    # As after the same three iterations alone: also the statistics of normalization.
    expected = train(tmp_path / 'short', n=6, divisor=10, epochs=1).model.state_dict()
    for key, value in expected.items():
        assert torch.equal(after[key], value), key


def test_iterations_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    runner = train(tmp_path, Policy(on_non_finite='skip'), n=10, nan=(6,))
    assert runner.iter == 10
    values = runner.model.state_dict().values()
    assert all(bool(torch.isfinite(value.double()).all()) for value in values)
    with pytest.raises(UserError, match='the loss is not finite .*, 3 times in a row'):
        train(tmp_path / 'all', Policy(on_non_finite='skip', max_non_finite=2), n=10, nan=tuple(range(10)))


def test_no_iterations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no iterations to train: train_dataloader has 10 samples in 0 batches of 64'):
        train(tmp_path, n=10, loader=dict(batch_size=64, drop_last=True))


class _Rise(Hook):
    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        for group in runner.optim_wrapper.param_groups:
            group['lr'] *= 20


def test_a_learning_rate_that_explodes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'iteration 3: the learning rate is 0.04, and \S+ allows 0 to 0.01; check'):
        train(tmp_path, n=10, lr=1e-4, hooks=[_Rise()])


def test_a_good_training_is_bit_identical_with_the_guard(tmp_path: Path) -> None:
    unguarded = build(tmp_path / 'unguarded', n=10)
    unguarded.train()
    result = train(tmp_path / 'guarded', n=10).model
    assert 'parse_losses' not in vars(result)
    for key, value in unguarded.model.state_dict().items():
        assert torch.equal(value, result.state_dict()[key]), key
