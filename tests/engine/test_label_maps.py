"""Label maps that LabelMapHook writes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from deformable_vit.apis.test import add_out
from deformable_vit.engine import LabelMapHook


class Images:
    def __init__(self, infos: list[dict[str, Any]], classes: int) -> None:
        self.infos, self.metainfo = infos, dict(classes=['x'] * classes)

    def __len__(self) -> int:
        return len(self.infos)

    def get_data_info(self, index: int) -> dict[str, Any]:
        return self.infos[index]


def write(out: Path, paths: list[str], classes: int, label: int, **meta: Any) -> None:
    dataset = Images([dict(img_path=path) for path in paths], classes)
    hook, runner = LabelMapHook(str(out)), SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
    hook.before_test(runner)
    for path in paths:
        labels = torch.full((1, 3, 5), label)
        sample = SegDataSample(metainfo=dict(img_path=path, **meta), pred_sem_seg=PixelData(data=labels))
        hook.after_test_iter(runner, 0, None, [sample])


@pytest.mark.parametrize(('classes', 'label', 'mode'), [(300, 299, 'I;16'), (257, 3, 'I;16'), (256, 255, 'L')])
def test_every_class_has_its_value(tmp_path: Path, classes: int, label: int, mode: str) -> None:
    write(tmp_path, ['data/a.v1.jpg'], classes, label)
    image = Image.open(tmp_path / 'a.v1.png')
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image), np.full((3, 5), label))


def test_classes_that_begin_at_1(tmp_path: Path) -> None:
    write(tmp_path, ['data/a.jpg'], 256, 255, reduce_zero_label=True)
    assert np.asarray(Image.open(tmp_path / 'a.png')).max() == 256


def test_images_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, ['data/u/1.jpg', 'data/v/1.jpg'], 3, 1)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob('*.png')) == ['u/1.png', 'v/1.png']


def test_metrics_stay_but_those_that_only_write_label_maps() -> None:
    iou, submit = dict(type='IoUMetric'), dict(type='CityscapesMetric', format_only=True, output_dir='submit')
    config = Config(dict(default_scope='mmseg', test_evaluator=[iou, submit, dict(iou, format_only=True)]))
    add_out(config, 'maps')
    assert config.test_evaluator == [iou, submit]
    assert [hook.type.split('.')[-1] for hook in config.custom_hooks] == ['LabelMapHook']
