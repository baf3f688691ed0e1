"""Detectors in ONNX Runtime, with the sizes of the file and others, find what their model finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_detectors import demo_config, random_detector, random_images
from torch import Tensor

from deformable_vit.export.detectors import wrap_detector
from deformable_vit.export.inputs import Input
from deformable_vit.export.preprocessing import Preprocessing
from deformable_vit.export.writing import write_onnx

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

nightly = pytest.mark.nightly


def write(module: Any, images: Tensor, path: Path, is_dynamic: bool) -> Any:
    """Return a function of images that runs the file."""
    write_onnx(module, Input(*images.shape[2:], Preprocessing(), is_dynamic), path, {})
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {'image': np.asarray(x)})]


def assert_same_detections(module: Any, run: Any, images: Tensor) -> None:
    """Compare detection by detection: rounding may swap two neighbors in the order, or the last ones of an image."""
    with torch.no_grad():
        expected, found = module(images), run(images)
    assert [x.shape for x in found] == [x.shape for x in expected]
    for i in range(len(images)):
        a, b = ([x[i] for x in side] for side in (expected, found))
        last = max(a[1].min(), b[1].min()) + 1e-3
        count = int((a[1] > last).sum())
        assert count > 10
        for k in range(count):
            same = (b[2] == a[2][k]) & ((b[1] - a[1][k]).abs() < 1e-3)
            same &= (b[0] - a[0][k]).abs().amax(dim=1) < 0.01
            assert same.any(), f'detection {k} of image {i}: {[x[k] for x in a[:3]]}'
            for mask, other in zip(a[3:], b[3:], strict=True):
                assert (other[same] - mask[k]).abs().flatten(1).amax(dim=1).min() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'is_dynamic'),
    [
        ('retinanet_pvtv2', True),
        ('mask-rcnn_pvtv2', False),
        pytest.param('mask-rcnn_pvtv2', True, marks=nightly),
        pytest.param('atss_pvtv2', True, marks=nightly),
        pytest.param('gfl_pvtv2', True, marks=nightly),
        pytest.param('cascade-mask-rcnn_dat', False, marks=nightly),
        pytest.param('detr_dat', False, marks=nightly),
        pytest.param('deformable-detr_pvtv2', False, marks=nightly),
        pytest.param('deformable-detr-refine-twostage_dat', False, marks=nightly),
        pytest.param('dino_dat', False, marks=nightly),
    ],
)
def test_file_finds_what_the_model_finds(name: str, is_dynamic: bool, tmp_path: Path) -> None:
    module = wrap_detector(random_detector(demo_config(name)))
    run = write(module, random_images(2 if is_dynamic else 1, 3, 128, 160), tmp_path / 'model.onnx', is_dynamic)
    shapes = [(2, 3, 128, 160), (1, 3, 75, 107), (3, 3, 160, 64)] if is_dynamic else [(1, 3, 128, 160)]
    for shape in shapes:
        assert_same_detections(module, run, random_images(*shape, seed=2))


@pytest.mark.slow
def test_file_finds_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    model = random_detector(demo_config('retinanet_pvtv2'))
    model.bbox_head.test_cfg.score_thr = 1.0
    images = random_images(1, 3, 128, 160)
    boxes, scores, labels = write(wrap_detector(model), images, tmp_path / 'model.onnx', is_dynamic=False)(images)
    assert (boxes == 0).all()
    assert (scores == 0).all()
    assert (labels == -1).all()
