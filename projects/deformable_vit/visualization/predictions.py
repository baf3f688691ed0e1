"""Predictions of a model in pixels of the image: boxes with labels, outlines, and a colored label map."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from .affine import Array

# Okabe and Ito's colors, which color-blind people can tell apart, without black: https://jfly.uni-koeln.de/color/.
COLORS = ('#e69f00', '#56b4e9', '#009e73', '#f0e442', '#d55e00', '#cc79a7', '#0072b2')


@dataclass
class Predictions:
    """Predictions for one image.

    Attributes:
        objects: For each object ``box`` (x0, y0, x1, y1), ``label``, ``score`` and ``outlines``, polygons of its mask.
        label_map: (height, width) of classes; None if there is none.
        classes: Names of the classes.
        best: Names and scores of the most probable classes of the image.
    """

    objects: list[dict[str, Any]] = field(default_factory=list)
    label_map: Array | None = None
    classes: Sequence[str] = ()
    best: list[tuple[str, float]] = field(default_factory=list)

    def name(self, label: int) -> str:
        """Return the name of a class."""
        return str(self.classes[label]) if label < len(self.classes) else f'class {label}'


def read_predictions(output: Any, classes: Sequence[str], score_thr: float = 0.3, limit: int = 100) -> Predictions:
    """Return the predictions in a data sample of mmdet, mmseg or mmpretrain, or none for other outputs.

    Args:
        output: Return value of ``model.test_step`` for an image.
        classes: Names of the classes.
        score_thr: Least score of an object.
        limit: Most objects.
    """
    result = Predictions(classes=classes)
    if 'pred_instances' in output:
        found = output.pred_instances.cpu().numpy()
        order = np.argsort(-found.scores)[:limit]
        masks = found.get('masks')
        for i in order[found.scores[order] >= score_thr]:
            box = found.bboxes[i] if 'bboxes' in found else np.zeros(4)
            result.objects.append(
                dict(
                    box=[round(float(v) - 0.5, 2) for v in box],  # mmdet's boxes run from border to border
                    label=result.name(int(found.labels[i])),
                    class_index=int(found.labels[i]),
                    score=round(float(found.scores[i]), 3),
                    outlines=[] if masks is None else _outlines(np.asarray(masks[i])),
                )
            )
    if 'pred_sem_seg' in output:
        result.label_map = output.pred_sem_seg.data[0].cpu().numpy()
    if 'pred_score' in output:
        scores = output.pred_score.cpu().numpy()
        result.best = [(result.name(int(i)), round(float(scores[i]), 4)) for i in np.argsort(-scores)[:5]]
    return result


def _outlines(mask: Array) -> list[list[float]]:
    """Return the outlines of a mask as flat lists x, y, x, y, ...."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    return [contour.ravel().tolist() for contour in contours if len(contour) > 2]


def color_of(label: int) -> str:
    """Return the color of a class."""
    return COLORS[label % len(COLORS)]


def ranked(label_map: Array) -> tuple[Array, Array]:
    """Return the classes of a label map, most frequent first (at most 256), and the rank of each pixel's class.

    Pixels of still rarer classes get the last rank.
    """
    labels, inverse, counts = np.unique(label_map, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind='stable')
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return labels[order][:256], np.minimum(rank, 255)[inverse.reshape(label_map.shape)].astype(np.uint8)


def rank_colors(count: int) -> list[str]:
    """Return a color for each rank, no two the same: first those that everybody can tell apart, then their shades."""
    colors = dict.fromkeys(COLORS)
    base = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLORS]
    for share in sorted(np.arange(1, 20) / 20, key=lambda share: abs(share - 0.4)):
        for target in (255, 0):
            for rgb in base:
                red, green, blue = (round(v + (target - v) * share) for v in rgb)
                colors[f'#{red:02x}{green:02x}{blue:02x}'] = None
    return list(colors)[:count]
