"""Drawn predictions, by the visualizers of mmdet, mmseg and mmpretrain."""

from collections.abc import Iterator
from copy import copy
from typing import Any

import numpy as np
import torch
from mmengine.utils import get_object_from_string
from pycocotools import mask as coco_mask

_VISUALIZERS = dict(
    mmdet='mmdet.visualization.DetLocalVisualizer',
    mmseg='deformable_vit.apis.seg_visualizer.LabeledSegVisualizer',
    mmpretrain='mmpretrain.visualization.UniversalVisualizer',
)
_MASK_BYTES = 2**30  # of masks that are drawn at once


def draw_prediction(model: Any, image: np.ndarray, sample: Any) -> np.ndarray:
    """Return an image (H, W, 3), RGB, with a data sample drawn by the visualizer of its task."""
    scope = model.cfg.default_scope
    visualizer = get_object_from_string(_VISUALIZERS[scope])()
    if scope == 'mmpretrain':
        return visualizer.visualize_cls(image, sample, classes=model.dataset_meta['classes'], draw_gt=False)
    visualizer.dataset_meta = model.dataset_meta
    options = dict(pred_score_thr=-1.0) if scope == 'mmdet' else {}
    for part in _parts(sample, max(1, _MASK_BYTES // (image.shape[0] * image.shape[1]))):
        visualizer.add_datasample('', image, part, draw_gt=False, **options)
        image = visualizer.get_image()
    return image


def _parts(sample: Any, count: int) -> Iterator[Any]:
    """Yield a data sample, or if its masks are RLE, one for each ``count`` of its objects, with arrays."""
    objects = sample.get('pred_instances')
    if objects is None or not isinstance(objects.get('masks'), list):
        yield sample
        return
    for start in range(0, max(1, len(objects)), count):
        yield _decoded(sample, objects[start : start + count])


def _decoded(sample: Any, objects: Any) -> Any:
    masks = [torch.from_numpy(coco_mask.decode(rle)).bool() for rle in objects.masks]
    del objects.masks
    objects.masks = torch.stack(masks) if masks else torch.zeros(0, *sample.ori_shape[:2], dtype=torch.bool)
    part = copy(sample)
    part.pred_instances = objects
    return part
