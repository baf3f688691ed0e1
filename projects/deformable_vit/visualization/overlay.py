"""Predictions of a model to lay over the image: boxes with labels, outlines, and a colored label map."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from .affine import Array

# Okabe and Ito's colors, which color-blind people can tell apart, without black: https://jfly.uni-koeln.de/color/.
COLORS = ('#e69f00', '#56b4e9', '#009e73', '#f0e442', '#d55e00', '#cc79a7', '#0072b2')


@dataclass
class Overlay:
    """Predictions for one image, in pixels of the image.

    Attributes:
        names: Of all classes.
        objects: For each object ``box`` (x0, y0, x1, y1), ``label``, ``score``, ``color`` and ``outlines``, polygons of
            its mask.
        ranks: (height, width), the rank of each pixel's class, most frequent first; None without a label map.
        classes: For each rank ``name`` and ``color`` of the class.
        best: Names and scores of the most probable classes of the image.
    """

    names: Sequence[str] = ()
    objects: list[dict[str, Any]] = field(default_factory=list)
    ranks: Array | None = None
    classes: list[dict[str, str]] = field(default_factory=list)
    best: list[tuple[str, float]] = field(default_factory=list)


def read_overlay(output: Any, names: Sequence[str], score_thr: float = 0.3, limit: int = 100) -> Overlay:
    """Return the predictions in a data sample of mmdet, mmseg or mmpretrain, or none for other outputs.

    Args:
        output: Return value of ``model.test_step`` for an image.
        names: Names of the classes.
        score_thr: Least score of an object.
        limit: Most objects.
    """
    result = Overlay(names)
    if 'pred_instances' in output:
        found = output.pred_instances.cpu().numpy()
        for i in [i for i in np.argsort(-found.scores)[:limit] if found.scores[i] >= score_thr]:
            label, masks = int(found.labels[i]), found.get('masks')
            result.objects.append(
                dict(
                    # mmdet's boxes run from border to border
                    box=[round(float(v) - 0.5, 2) for v in (found.bboxes[i] if 'bboxes' in found else np.zeros(4))],
                    label=names[label],
                    score=round(float(found.scores[i]), 3),
                    color=COLORS[label % len(COLORS)],
                    outlines=[] if masks is None else _outlines(np.asarray(masks[i])),
                )
            )
    if 'pred_sem_seg' in output:
        labels = output.pred_sem_seg.data[0].cpu().numpy()
        found, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        order = np.argsort(-counts, kind='stable')
        result.ranks = np.minimum(np.argsort(order)[inverse], 255).reshape(labels.shape).astype(np.uint8)
        pairs = zip(found[order][:256], rank_colors(), strict=False)
        result.classes = [dict(name=names[label], color=color) for label, color in pairs]
    if 'pred_score' in output:
        scores = output.pred_score.cpu().numpy()
        result.best = [(names[i], round(float(scores[i]), 4)) for i in np.argsort(-scores)[:5]]
    return result


def _outlines(mask: Array) -> list[list[float]]:
    """Return the outlines of a mask as flat lists x, y, x, y, ...."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    return [contour.ravel().tolist() for contour in contours if len(contour) > 2]


def rank_colors() -> list[str]:
    """Return 256 colors, no two the same: first those that everybody can tell apart."""
    hues = (colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.7, 0.9) for i in range(256 - len(COLORS)))
    return [*COLORS, *(f'#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}' for r, g, b in hues)]
