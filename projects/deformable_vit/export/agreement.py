"""Compare the detections of an exported file with those of its model, one to one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

# Pixels are for boxes that clipping leaves without an area, and small ones.
IOU, PIXELS, SCORE, MASK = 0.99, 0.01, 1e-3, 1e-3


@dataclass
class Agreement:
    """What the comparison of some images found.

    Attributes:
        score_thr: Least score of a detection of the model.
        count: Detections of the model.
        unmatched: Detections of either side without a partner of the same class and score, whose box has an IoU of 0.99
            or corners within 0.01 pixels. Those whose score rounding may put on either side of the lowest one that is
            kept do not count.
        pixels: Largest difference between the boxes of partners.
        score: Largest difference of their scores.
        mask: Largest difference of their mask probabilities.
    """

    score_thr: float = 0.0
    count: int = 0
    unmatched: int = 0
    pixels: float = 0.0
    score: float = 0.0
    mask: float = 0.0

    def add(self, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
        """Compare the detections of one image: ``boxes`` (K, 4), ``scores`` (K), ``labels`` (K), ``masks`` if any."""
        is_full = bool((expected['labels'] >= 0).all())
        lowest = float(expected['scores'].min()) if is_full else self.score_thr
        a, b = (_without_empty(side) for side in (expected, found))
        self.count += len(a['scores'])
        pairs = _pairs(a, b)
        for side, index in ((a, 0), (b, 1)):
            is_alone = torch.ones(len(side['scores']), dtype=torch.bool)
            is_alone[[pair[index] for pair in pairs]] = False
            self.unmatched += int((is_alone & (side['scores'] > lowest + SCORE)).sum())
        if pairs:
            i, j = torch.tensor(pairs).T
            self.pixels = max(self.pixels, float((a['boxes'][i] - b['boxes'][j]).abs().max()))
            self.score = max(self.score, float((a['scores'][i] - b['scores'][j]).abs().max()))
            if 'masks' in a:
                self.mask = max(self.mask, float((a['masks'][i] - b['masks'][j]).abs().max()))


def _without_empty(side: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x[side['labels'] >= 0] for name, x in side.items()}


def _pairs(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Return the indices of partners, the nearest boxes first."""
    distance = (a['boxes'][:, None] - b['boxes']).abs().amax(dim=2)
    fits = (box_iou(a['boxes'], b['boxes']) >= IOU) | (distance <= PIXELS)
    fits &= (a['labels'][:, None] == b['labels']) & ((a['scores'][:, None] - b['scores']).abs() <= SCORE)
    pairs: list[tuple[int, int]] = []
    rows, columns = set[int](), set[int]()
    candidates = fits.nonzero()
    order = distance[fits].argsort(stable=True)
    for i, j in candidates[order].tolist():
        if i not in rows and j not in columns:
            pairs.append((i, j))
            rows.add(i)
            columns.add(j)
    return pairs
