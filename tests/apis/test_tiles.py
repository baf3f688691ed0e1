"""Tiles of an image, with a detector that finds each blob of its input."""

import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from deformable_vit.apis.drawing import draw_prediction
from deformable_vit.apis.inference import Predictor
from deformable_vit.apis.tiles import TiledPredictor, _merge, check_tiles
from deformable_vit.errors import UserError

DETECTOR = Config(dict(default_scope='mmdet', model=dict(type='MaskRCNN')))


class BlobPredictor(TiledPredictor):
    """A detector of blobs; their class is their value less 1."""

    def __init__(self, tile: int, has_masks: bool, score_thr: float = 0.3) -> None:
        self.tile, self.overlap, self.batch_size, self.score_thr = tile, 0.25, 3, score_thr
        self.classes, self.has_masks, self.sizes = ['a', 'b'], has_masks, []


@pytest.fixture(autouse=True)
def _blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(self: BlobPredictor, images: Sequence[np.ndarray]) -> list[Any]:
        self.sizes += [image.shape[:2] for image in images]
        return [sample_of(image, self.has_masks) for image in images]

    monkeypatch.setattr(Predictor, 'predict', predict)


def sample_of(image: np.ndarray, has_masks: bool) -> DetDataSample:
    boxes, labels, masks = [], [], []
    for value in (1, 2):
        count, components, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] == value).astype(np.uint8))
        for i in range(1, count):
            x, y, width, height, _ = stats[i]
            boxes.append([x, y, x + width, y + height])
            labels.append(value - 1)
            masks.append(components == i)
    found = InstanceData(bboxes=torch.tensor(boxes).float().reshape(-1, 4), labels=torch.tensor(labels).long())
    areas = (found.bboxes[:, 2:] - found.bboxes[:, :2]).prod(1)
    found.scores = 0.5 + areas / 1e5  # what is seen whole is more certain
    if has_masks:
        found.masks = torch.tensor(np.array(masks).reshape(-1, *image.shape[:2]))
    return DetDataSample(metainfo=dict(ori_shape=image.shape[:2]), pred_instances=found)


@pytest.mark.parametrize('has_masks', [False, True])
def test_objects_on_the_borders_of_tiles_are_merged(has_masks: bool) -> None:
    image = np.zeros((100, 130, 3), np.uint8)
    blobs = {(5, 5, 25, 15): 1, (30, 20, 60, 50): 2, (70, 10, 130, 90): 1, (20, 60, 24, 98): 2}
    for (x0, y0, x1, y1), value in blobs.items():
        image[y0:y1, x0:x1] = value
    predictor = BlobPredictor(40, has_masks)
    (sample,) = predictor.predict([image])
    assert set(predictor.sizes) == {(100, 130), (40, 40)}
    record = predictor.record(sample) if has_masks else None
    found = sample.pred_instances
    boxes = [tuple(map(int, box)) for box in found.bboxes.tolist()]
    assert dict(zip(boxes, (found.labels + 1).tolist(), strict=True)) == blobs
    if record is not None:
        assert sorted(record['label_names']) == ['a', 'a', 'b', 'b']
        for box, rle in zip(boxes, record['masks'], strict=True):
            x0, y0, x1, y1 = box
            expected = np.zeros((100, 130), np.uint8)
            expected[y0:y1, x0:x1] = 1
            np.testing.assert_array_equal(coco_mask.decode(rle), expected)


def test_boxes_are_merged_as_sahi_merges_them() -> None:
    from sahi.postprocess.combine import GreedyNMMPostprocess
    from sahi.prediction import ObjectPrediction

    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 60, (80, 2))
    boxes = np.hstack([corners, corners + generator.uniform(5, 40, (80, 2))])
    labels, scores = generator.integers(0, 2, 80), generator.uniform(0.3, 1, 80)
    predictions = [
        ObjectPrediction(bbox=box, category_id=int(label), category_name='', score=float(score))
        for box, label, score in zip(boxes.tolist(), labels, scores, strict=True)
    ]
    merged = GreedyNMMPostprocess(match_threshold=0.5, match_metric='IOS', class_agnostic=False)(predictions)
    expected = sorted([one.category.id, one.score.value, *one.bbox.to_xyxy()] for one in merged)
    instances = InstanceData(bboxes=torch.tensor(boxes), labels=torch.tensor(labels), scores=torch.tensor(scores))
    found = _merge([(DetDataSample(pred_instances=instances), 0, 0)], 100, 100, 0.3)
    rows = torch.cat([found.labels[:, None], found.scores[:, None], found.bboxes], 1)
    np.testing.assert_allclose(sorted(rows.tolist()), expected, rtol=1e-6)


@pytest.mark.parametrize('score_thr', [0.0, 0.3])
def test_no_objects(score_thr: float) -> None:
    predictor = BlobPredictor(40, True, score_thr)
    (sample,) = predictor.predict([np.zeros((100, 130, 3), np.uint8)])
    assert predictor.record(sample) == dict(labels=[], scores=[], bboxes=[], masks=[], label_names=[])


def test_an_image_that_fits_in_a_tile_is_predicted_once() -> None:
    predictor = BlobPredictor(64, True)
    (sample,) = predictor.predict([np.full((50, 64, 3), 1, np.uint8)])
    assert predictor.sizes == [(50, 64)]
    assert isinstance(sample.pred_instances.masks, torch.Tensor)


def test_merged_masks_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, as those of a large image are."""
    image = np.zeros((100, 130, 3), np.uint8)
    image[10:60, 20:90], image[70:95, 20:50] = 1, 2
    (sample,) = BlobPredictor(40, True).predict([image])
    monkeypatch.setattr('deformable_vit.apis.drawing._MASK_BYTES', 1)
    model: Any = torch.nn.Identity()
    model.cfg, model.dataset_meta = DETECTOR, dict(classes=['a', 'b'], palette=[(255, 0, 0), (0, 255, 0)])
    drawn = draw_prediction(model, np.zeros_like(image), sample).astype(int)
    print('PIX', drawn[40, 70], drawn[85, 40], drawn[5, 110], drawn[12, 22], drawn[50, 30])
    assert drawn[40, 70, 0] > 50 > drawn[40, 70, 1]
    assert drawn[85, 40, 1] > 50 > drawn[85, 40, 0]
    assert drawn[5, 110].max() == 0


def test_bad_options(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tiles(DETECTOR, 800, 0.0)
    for tile, overlap in ((0, 0.2), (800, 1.0), (800, -0.1)):
        with pytest.raises(UserError, match=f'got {tile} and {overlap}'):
            check_tiles(DETECTOR, tile, overlap)
    with pytest.raises(UserError, match='semantic segmentation'):
        check_tiles(Config(dict(default_scope='mmseg', model=dict(type='EncoderDecoder'))), 800, 0.2)
    monkeypatch.setitem(sys.modules, 'sahi', None)
    with pytest.raises(UserError, match='pip install'):
        check_tiles(DETECTOR, 800, 0.2)
