"""Detection in tiles of large images, merged with sahi."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from torch import Tensor

from ..errors import UserError
from .inference import TASKS, Predictor


class TiledPredictor(Predictor):
    """Predict an image as a whole and in tiles that overlap, and merge the objects as sahi does by default.

    Boxes of one class are merged where their intersection is more than half of the smaller one; below a threshold of
    0.1 non-maximum suppression takes the place of merging. Masks are merged, too; they are COCO's RLE, since an array
    per object of a large image would not fit.

    Args:
        tile: Width and height of a tile, in pixels.
        overlap: Of neighboring tiles, as a fraction of the tile.
        batch_size: Tiles per forward pass.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str,
        device: str,
        score_thr: float,
        tile: int,
        overlap: float = 0.2,
        batch_size: int = 1,
    ) -> None:
        check_tiles(config, tile, overlap)
        super().__init__(config, checkpoint, device, score_thr)
        self.tile, self.overlap, self.batch_size = tile, overlap, batch_size

    def predict(self, images: Sequence[str | np.ndarray]) -> list[Any]:
        """Return mmdet's data samples, on the CPU; masks of tiled images are lists of RLE."""
        return [self._predict(image) for image in images]

    def _predict(self, image: str | np.ndarray) -> Any:
        from sahi.slicing import get_slice_bboxes

        (whole,) = super().predict([image])
        height, width = whole.ori_shape[:2]
        tiles = get_slice_bboxes(height, width, self.tile, self.tile, False, self.overlap, self.overlap)
        if len(tiles) == 1:
            return whole
        if 'pred_instances' not in whole:
            raise UserError(f'--tile merges objects, and {type(self.model).__name__} predicts none')
        if isinstance(image, str):
            loaders = [one for one in self.inferencer.pipeline.transforms if type(one).__name__ == 'InferencerLoader']
            image = loaders[0](image)['img']  # as the config loads it
        assert isinstance(image, np.ndarray)
        found = [(whole, 0, 0)]
        for start in range(0, len(tiles), self.batch_size):
            boxes = tiles[start : start + self.batch_size]
            crops = [np.ascontiguousarray(image[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes]
            samples = super().predict(crops)
            found += [(sample, box[0], box[1]) for sample, box in zip(samples, boxes, strict=True)]
        whole.pred_instances = _merge(found, height, width, self.score_thr)
        return whole

    def record(self, sample: Any) -> dict[str, Any]:
        """Return a prediction as plain numbers and names, for JSON."""
        objects = sample.pred_instances
        if not isinstance(objects.get('masks'), list):
            return super().record(sample)
        record = {key: objects[key].tolist() for key in ('labels', 'scores', 'bboxes')}
        record['masks'] = [dict(rle, counts=rle['counts'].decode()) for rle in objects.masks]
        return record | dict(label_names=[self.classes[label] for label in record['labels']])


def check_tiles(config: Config, tile: int, overlap: float) -> None:
    """Check the options of tiles.

    Raises:
        UserError: The model is no detector, sahi is missing, or a number is out of range.
    """
    if config.default_scope != 'mmdet':
        task = TASKS[config.default_scope][0]
        raise UserError(f'--tile merges the boxes of detectors, and the config is for {task}; predict without it')
    if tile < 1 or not 0 <= overlap < 1:
        raise UserError(f'--tile is at least 1 pixel and --overlap in [0, 1), got {tile} and {overlap}')
    try:
        import sahi  # noqa: F401
    except ImportError as error:
        raise UserError(f"--tile needs sahi ({error}); pip install 'sahi>=0.12,<0.13'") from error


def _merge(found: Sequence[tuple[Any, int, int]], height: int, width: int, score_thr: float) -> InstanceData:
    """Return the objects of samples at (left, top) in an image, merged."""
    from sahi.postprocess.combine import batched_greedy_nmm, batched_nms

    objects = [sample.pred_instances for sample, _, _ in found]
    shifts = torch.cat([torch.tensor([[x, y, x, y]]).expand(len(s.pred_instances), 4) for s, x, y in found])
    boxes = torch.cat([one.bboxes for one in objects]) + shifts
    scores, labels = (torch.cat([one[key] for one in objects]) for key in ('scores', 'labels'))
    columns = torch.cat([boxes, scores[:, None], labels[:, None]], 1).double().numpy()
    merged: dict[int, list[int]] = batched_greedy_nmm(columns, match_metric='IOS', match_threshold=0.5)
    if score_thr < 0.1:  # where merging would enlarge boxes by many unlikely ones
        merged = {keep: [] for keep in batched_nms(columns, match_metric='IOU', match_threshold=0.5)}
    kept = sorted(merged, key=lambda index: -float(scores[index]))
    groups = [_grow(boxes, index, merged[index]) for index in kept]
    result = InstanceData(scores=scores[kept], labels=labels[kept])
    corners = [torch.cat([boxes[group, :2].amin(0), boxes[group, 2:].amax(0)]) for group in groups]
    result.bboxes = torch.stack(corners) if corners else boxes[:0]
    if any('masks' in one for one in objects):
        places = [(s.pred_instances.masks[i], x, y) for s, x, y in found for i in range(len(s.pred_instances))]
        rles = [_encode(np.asarray(mask, bool), x, y, height, width) for mask, x, y in places]
        result.masks = [coco_mask.merge([rles[i] for i in group]) for group in groups]
    return result


def _grow(boxes: Tensor, kept: int, others: Sequence[int]) -> list[int]:
    """Return the indices of the boxes that are merged into one: like sahi, those that also match what it has become."""
    box, group = boxes[kept], [kept]
    for index in others:
        other = boxes[index]
        low, high = torch.maximum(box[:2], other[:2]), torch.minimum(box[2:], other[2:])
        smaller = min(_area(box), _area(other))
        if float((high - low).clamp(min=0).prod()) >= 0.5 * smaller:
            box = torch.cat([torch.minimum(box[:2], other[:2]), torch.maximum(box[2:], other[2:])])
            group.append(index)
    return group


def _area(box: Tensor) -> float:
    return float((box[2:] - box[:2]).prod())


def _encode(mask: np.ndarray, x: int, y: int, height: int, width: int) -> dict[str, Any]:
    """Return a mask at (x, y) of an image as RLE, column by column, without an array of the size of the image."""
    strip = np.zeros((mask.shape[1], height), bool)
    strip[:, y : y + len(mask)] = mask.T
    flat = strip.ravel()
    changes = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    edges = [0, *(changes + x * height).tolist(), width * height]
    # Counts begin with pixels outside of the mask.
    if flat[0]:
        edges.insert(1, x * height)
    if flat[-1]:
        edges.insert(-1, (x + mask.shape[1]) * height)
    return coco_mask.frPyObjects(dict(size=[height, width], counts=np.diff(edges).tolist()), height, width)
