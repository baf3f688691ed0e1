"""ValidationLossHook in trainings of mmengine's own runner, and of mmdet, mmseg and mmpretrain."""

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from few_images import config, shapes  # noqa: F401  fixtures
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from torch import Tensor, nn

from deformable_vit.errors import UserError

Write = Callable[..., Path]
HOOKS = ('deformable_vit.engine.ValidationLossHook', 'deformable_vit.engine.FiniteLossHook')


@DATASETS.register_module()
class FiveNumbers(BaseDataset):
    """0 to 4."""

    def load_data_list(self) -> list[dict[str, Any]]:
        return [dict(value=float(i)) for i in range(5)]


@TRANSFORMS.register_module()
class LoadTarget:
    """Add the number that the value has when this transform runs."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return data | dict(target=data['value'])


@TRANSFORMS.register_module()
class AddHundred:
    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return data | dict(value=data['value'] + 100)


@TRANSFORMS.register_module()
class PackNumbers:
    def __init__(self, infinite: bool = False) -> None:
        self.scale = float('inf') if infinite else 1.0

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        # One random number of each kind for each sample, as augmentations and samplers draw them.
        noise = torch.rand(()) * 0
        return dict(inputs=torch.tensor([data['value']]) + noise, targets=torch.tensor(data['target'] * self.scale))


@MODELS.register_module()
class NumbersModel(BaseModel):
    """Loss: the mean of the targets, plus a term that depends on dropout in training."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(1, 1)

    def loss(self, inputs: Any, targets: Any) -> dict[str, Tensor]:
        assert self.training  # as DETR needs it
        out = self.linear(self.drop(torch.ones(1000, 1))).mean() * torch.rand(())
        return dict(loss_mean=torch.stack(targets).mean(), loss_out=0.01 * out, accuracy=out)

    def forward(self, inputs: Any, targets: Any, mode: str = 'tensor') -> Any:
        if mode == 'loss':
            return self.loss(inputs, targets)
        assert not any(module.training for module in self.modules())
        return [torch.rand(()) for _ in inputs]


@METRICS.register_module()
class CountNumbers(BaseMetric):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += data_samples

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(count=len(results))


def run(work_dir: Path, hooks: Sequence[str] = (), workers: int = 0, pack: dict[str, Any] | None = None) -> Runner:
    pack = dict(type='PackNumbers', **(pack or {}))
    load, add = dict(type='LoadTarget'), dict(type='AddHundred')

    def loader(shuffle: bool, pipeline: list[Any]) -> dict[str, Any]:
        return dict(
            batch_size=2,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            dataset=dict(
                type='ConcatDataset', datasets=[dict(type='FiveNumbers', pipeline=pipeline, test_mode=not shuffle)]
            ),
        )

    runner = Runner.from_cfg(
        Config(
            dict(
                model=dict(type='NumbersModel'),
                work_dir=str(work_dir),
                train_dataloader=loader(True, [load, add, dict(type='PackNumbers')]),
                val_dataloader=loader(False, [add, load, pack]),  # as OpenMMLab loads annotations
                train_cfg=dict(by_epoch=True, max_epochs=2),
                val_cfg=dict(),
                val_evaluator=dict(type='CountNumbers'),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='val/loss' if hooks else None)),
                custom_hooks=[dict(type=name) for name in hooks],
                randomness=dict(seed=3),
                experiment_name=work_dir.name,
            )
        )
    )
    runner.train()
    return runner


def logged(work_dir: Path) -> list[dict[str, Any]]:
    """Return the lines that mmengine writes for validations."""
    lines = [json.loads(line) for line in next(work_dir.rglob('scalars.json')).read_text().splitlines()]
    return [line for line in lines if 'count' in line]


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_losses_are_logged_and_the_training_stays_the_same(tmp_path: Path, workers: int) -> None:
    plain = run(tmp_path / 'plain', (), workers)
    hooked = run(tmp_path / 'hooked', HOOKS, workers)
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, hooked.model.state_dict()[key]), key
    found = logged(tmp_path / 'hooked')
    assert len(found) == 2
    for line in found:
        assert line['val/loss_mean'] == pytest.approx(2.0)  # each image once, without the 100 that the pipeline adds
        assert line['val/loss'] == pytest.approx(line['val/loss_mean'] + line['val/loss_out'], rel=1e-5)
        assert line['count'] == 5
        assert 'val/accuracy' not in line
    assert len(list((tmp_path / 'hooked').glob('best_val_loss_epoch_*.pth'))) == 1
    assert found[0]['val/loss_out'] != found[1]['val/loss_out']
    assert not any('val/loss' in line for line in logged(tmp_path / 'plain'))


def test_a_validation_loss_that_is_not_finite_stops_nothing(tmp_path: Path) -> None:
    run(tmp_path / 'run', HOOKS, pack=dict(infinite=True))
    assert [math.isfinite(line['val/loss_mean']) for line in logged(tmp_path / 'run')] == [False, False]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['retinanet_pvt_shapes.py', 'mask-rcnn_pvt_shapes.py', 'dino_dat_shapes.py'])
def test_losses_of_a_detector_are_those_of_training(config: Write, tmp_path: Path, name: str) -> None:  # noqa: F811
    """Without augmentation, dropout and learning rate, on the training set, whose boxes are resized."""
    loaded = Config.fromfile(config(name))
    loaded.work_dir, loaded.experiment_name = str(tmp_path / 'run'), name
    loaded.custom_hooks = [dict(type='deformable_vit.engine.ValidationLossHook')]
    loaded.train_cfg.update(max_epochs=1, val_interval=1)
    loaded.optim_wrapper.optimizer.lr = 0
    loaded.model.backbone.update(init_cfg=None, drop_path_rate=0.0)
    loaded.model.neck.norm_cfg = None  # batch norm differs in evaluation
    if 'roi_head' in loaded.model:
        for head in (loaded.model.roi_head.bbox_head, loaded.model.roi_head.mask_head):
            head.norm_cfg = None
        for stage in ('rpn', 'rcnn'):  # all instead of a random sample
            loaded.model.train_cfg[stage].sampler.num = 10**6
    train, val = loaded.train_dataloader.dataset, loaded.val_dataloader.dataset
    for loader in (loaded.train_dataloader, loaded.val_dataloader):
        loader.batch_size = 8
    load, annotate, resize, pack = train.pipeline
    resize.scale = (160, 160)
    train.update(filter_cfg=None)
    val.update(ann_file=train.ann_file, data_prefix=train.data_prefix, pipeline=[load, resize, annotate, pack])
    loaded.val_evaluator.ann_file = f'{train.data_root}{train.ann_file}'
    runner = Runner.from_cfg(loaded)
    runner.train()

    found = {key: value.current() for key, value in runner.message_hub.log_scalars.items()}
    terms = [key.removeprefix('train/') for key in found if 'loss' in key and key.startswith('train/')]
    assert len(terms) >= 3
    # Queries with noise draw random numbers.
    tolerance = 0.2 if name.startswith('dino') else 1e-4
    for term in terms:
        assert found[f'val/val/{term}'] == pytest.approx(found[f'train/{term}'], rel=tolerance), term


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['mask-rcnn_pvt_shapes.py', 'mask2former-semantic_dat-pp_shapes.py', 'fpn_pvt_shapes.py', 'pvt_shapes.py']
)
def test_losses_of_other_models(config: Write, tmp_path: Path, name: str) -> None:  # noqa: F811
    loaded = Config.fromfile(config(name))
    loaded.work_dir, loaded.experiment_name = str(tmp_path / 'run'), name
    loaded.custom_hooks = [dict(type='deformable_vit.engine.ValidationLossHook')]
    if 'max_epochs' in loaded.train_cfg:
        loaded.train_cfg.max_epochs = 1
    loaded.model.backbone.init_cfg = None
    runner = Runner.from_cfg(loaded)
    runner.train()
    found = runner.message_hub.log_scalars
    for key in [key for key in found if 'loss' in key and key.startswith('train/')]:
        assert 0 < found[f'val/val/{key.removeprefix("train/")}'].current() < 100


@pytest.mark.slow
def test_validation_without_annotations_is_one_line_before_the_training(
    config: Write,  # noqa: F811
    tmp_path: Path,
) -> None:
    loaded = Config.fromfile(config('retinanet_pvt_shapes.py'))
    loaded.work_dir = str(tmp_path / 'run')
    loaded.custom_hooks = [dict(type='deformable_vit.engine.ValidationLossHook')]
    pipeline = loaded.val_dataloader.dataset.pipeline
    loaded.val_dataloader.dataset.pipeline = [one for one in pipeline if one.type != 'LoadAnnotations']
    with pytest.raises(UserError, match=re.escape('val_dataloader needs')) as error:
        Runner.from_cfg(loaded).train()
    assert '\n' not in str(error.value)
    assert not list(tmp_path.glob('run/*.pth'))
