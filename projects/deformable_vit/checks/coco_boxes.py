"""Boxes and masks of annotations in COCO's format."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from .datasets import Data

# A box may leave its image by rounding.
_TOLERANCE = 2.0
Level = Literal['error', 'warning']


def finite(value: Any, length: int) -> list[float] | None:
    """Return finite numbers of a list of the given length, else None."""
    is_list = isinstance(value, list) and len(value) == length
    return value if is_list and all(type(v) in (int, float) and math.isfinite(v) for v in value) else None


def check_format(data: Data, file: str, boxes: Sequence[tuple[list[float], tuple[float, float], Any]]) -> None:
    """Find boxes, each with the (width, height) of its image and its area, in another format than (x, y, w, h)."""
    if boxes and all(max(box) <= 1.001 and min(box) >= 0 and max(size) > 2 for box, size, _ in boxes):
        data.error('boxes are normalized (0 to 1); COCO has pixels', file)
        return
    # A few boxes may leave their images by mistake; and one at a border says that the format is right.
    are_corners = all(w > x and h > y and not is_beyond(w, h, size) for (x, y, w, h), size, _ in boxes)
    leaving = sum(is_beyond(x + w, y + h, size) for (x, y, w, h), size, _ in boxes)
    if are_corners and len(boxes) >= 5 and leaving >= len(boxes) / 2:
        # Where the areas are those of width and height, the boxes may only be inexact.
        fitting = sum(isinstance(a, (int, float)) and math.isclose(a, b[2] * b[3], rel_tol=0.01) for b, _, a in boxes)
        level = data.warning if fitting >= len(boxes) / 2 else data.error
        kind = 'boxes look like corners (x0, y0, x1, y1); COCO has (x, y, width, height)'
        level(kind, file, '', f'{leaving} of {len(boxes)} leave their images')


def wrong_segmentation(value: Any, size: tuple[float, float], poly2mask: bool = True) -> tuple[Level, str]:
    """Return what is wrong with polygons or an RLE in an image of (width, height), or an empty text.

    mmdet leaves out polygons of an odd number or of fewer than six numbers, and ignores an object that has no other.
    """
    if not value:
        return 'error', 'no "segmentation", which with_mask=True needs'
    if isinstance(value, list):
        if not all(isinstance(polygon, list) and finite(polygon, len(polygon)) is not None for polygon in value):
            return 'error', 'a polygon is not a list of finite numbers'
        if not any(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in value):
            return 'warning', 'no polygon has three points: mmdet ignores the object'
        return 'error', ''
    if not isinstance(value, dict):
        return 'error', 'a segmentation is neither polygons nor RLE'
    extent, counts = value.get('size'), value.get('counts')
    if not isinstance(counts, (list, str)) or extent is None:
        return 'warning', 'an RLE has no counts and size: mmdet ignores the object'
    if not poly2mask:
        return 'warning', 'an RLE, which mmdet ignores with poly2mask=False'
    if finite(extent, 2) != [size[1], size[0]]:
        return 'error', 'an RLE has another size than the image'
    if isinstance(counts, list) and not finite(counts, len(counts)):
        return 'error', 'the counts of an RLE are not numbers'
    if isinstance(counts, list) and sum(counts) != math.prod(extent):
        level: Level = 'warning' if sum(counts) < math.prod(extent) else 'error'
        return level, 'the counts of an RLE do not add up to its size'
    return 'error', ''


def is_beyond(x: float, y: float, size: tuple[float, float]) -> bool:
    """Return whether a point is right of an image of (width, height), or below it."""
    return x > size[0] + _TOLERANCE or y > size[1] + _TOLERANCE
