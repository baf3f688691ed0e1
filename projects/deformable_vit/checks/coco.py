"""Checks of annotation files in COCO's format, by what mmdet and pycocotools do with each entry."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import first_line
from .datasets import Data, Job, check_heads, listed
from .images import check_image

# A box may leave its image by rounding.
_TOLERANCE = 2.0


def is_coco(data: Data) -> bool:
    """Return whether a dataset reads COCO's format of detection; those of LVIS and panoptic data differ."""
    base, readers = data.base('mmdet.CocoDataset'), ('load_data_list', 'parse_data_info')
    return bool(base and all(getattr(data.type, name) is getattr(base, name) for name in readers))


def check_coco(data: Data) -> Iterator[Job]:
    """Check an annotation file, and yield a job for each image."""
    file = data.dataset.ann_file
    try:
        content = json.loads(Path(file).read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        data.error('the annotation file is not JSON', file, '', first_line(error))
        return
    lists: dict[str, list[dict[str, Any]]] = {}
    for key in ('images', 'annotations', 'categories'):
        value = content.get(key) if isinstance(content, dict) else None
        if key == 'annotations' and not value and not data.is_train:  # images to detect on, such as test-dev
            lists[key] = []
        elif not value or not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            data.error('not in COCO format: a list of dicts is missing or empty', file, '', repr(key))
        else:
            lists[key] = value
    if len(lists) == 3:
        yield from _Coco(data, file, lists).check()


class _Coco:
    """The entries of a file, and what training and evaluation need of them."""

    def __init__(self, data: Data, file: str, lists: dict[str, list[dict[str, Any]]]) -> None:
        self.data, self.file = data, file
        self.images, self.annotations, self.categories = lists.values()
        self.names = {c.get('id'): c.get('name') for c in self.categories if _is_id(c.get('id'))}
        self.sizes = {i.get('id'): _size(i) for i in self.images if _is_id(i.get('id'))}
        # pycocotools evaluates by this file where the metric names it; else mmdet makes its own.
        metrics = [e for e in data.evaluators() if Path(e.get('ann_file') or '').absolute() == Path(file).absolute()]
        self.is_evaluated = any(not metric.get('format_only') for metric in metrics)
        is_segm = any('segm' in metric.get('metric', 'bbox') for metric in metrics)
        self.needs_masks = bool(data.step('LoadAnnotations').get('with_mask')) if data.is_train else is_segm
        self.boxes: list[tuple[list[float], tuple[float, float]]] = []
        # Ids of the categories that are classes, and of the images that have a box of them.
        self.wanted = {key for key, name in self.names.items() if not data.classes or name in data.classes}
        self.used: set[Any] = set()

    def check(self) -> Iterator[Job]:
        """Check all entries, and yield a job for each image."""
        data = self.data
        self._check_ids('image', self.images, 'file_name')
        self._check_ids('annotation', self.annotations)
        self._check_ids('category', self.categories, 'name')
        self._check_classes()
        for annotation in self.annotations:
            self._check_annotation(annotation)
        self._check_format()
        if data.is_train and self.wanted:
            self._check_filters()
        for image in self.images:
            record, size = f'image {image.get("id")!r}', _size(image)
            if size is None:
                shown = f'{image.get("width")!r} x {image.get("height")!r}'
                data.error('an image has no valid width and height', self.file, record, shown)
            if isinstance(name := image.get('file_name'), str):
                yield partial(check_image, data, Path(data.dataset.data_prefix['img'], name), size, record)

    def _check_ids(self, key: str, entries: list[dict[str, Any]], name: str | None = None) -> None:
        """Check the ids of all entries of a kind, and that they have a name."""
        seen = set()
        is_evaluated = self.is_evaluated and key == 'annotation'
        for entry in entries:
            record = f'{key} {(value := entry.get("id"))!r}'
            if name and not isinstance(entry.get(name), str):
                self.data.error(f'{key} without a {name}', self.file, record)
            if not _is_id(value):
                self.data.error('an id is neither a whole number nor text', self.file, record)
                continue
            if value in seen:
                self.data.error(f'duplicate id of {key}', self.file, record)
            seen.add(value)
            if is_evaluated and isinstance(value, str) and not value.isdigit():
                self.data.error('pycocotools cannot evaluate an id that is text', self.file, record)
            elif is_evaluated and value == 0:
                kind = 'pycocotools takes the id 0 for "no match"; number annotations from 1'
                self.data.warning(kind, self.file, record)

    def _check_classes(self) -> None:
        data, classes, file = self.data, self.data.classes, self.file
        if not classes:
            return
        names = tuple(str(name) for name in self.names.values())
        found = [name for name in names if name in classes]
        both = f'the config has {listed(classes)}, the file has {listed(names)}'
        missing = listed([name for name in classes if name not in found])
        if len(set(found)) < len(found):
            data.error('two categories have one name', file, '', listed(found))
        elif found == list(classes):
            check_heads(data, classes)
        elif set(found) == set(classes):
            kind = f'classes must be in the order of the annotation file, {tuple(found)}'
            data.error(kind, file, '', both)
        else:
            # mmdet numbers the classes in the order of the file: only the last ones may be missing.
            is_usable = data.is_part and found and found == list(classes[: len(found)])
            level = data.warning if is_usable else data.error
            kind = f'classes {missing} are not in the annotation file'
            level(kind, file, '', f'{both}; set metainfo=dict(classes={names})')

    def _check_annotation(self, annotation: dict[str, Any]) -> None:
        """Follow mmdet's ``CocoDataset.parse_data_info``, then pycocotools."""
        data, where = self.data, (self.file, f'annotation {annotation.get("id")!r}')
        category, image, bbox = (annotation.get(key) for key in ('category_id', 'image_id', 'bbox'))
        for key, value, known in (('category_id', category, self.names), ('image_id', image, self.sizes)):
            if isinstance(value, (dict, list)) or key not in annotation:  # pycocotools looks it up
                data.error(f'{key} is neither a whole number nor text', *where, repr(value)[:80])
                return
            if value not in known:
                data.warning(f'unknown {key}: mmdet drops the annotation', *where, repr(value))
        if category in self.wanted:
            self.used.add(image)
        box, size, area = _numbers(bbox, 4), self.sizes.get(image), annotation.get('area')
        if size is None or annotation.get('ignore'):
            return
        if self.is_evaluated and category in self.wanted and 'iscrowd' not in annotation:
            data.error("no 'iscrowd', which pycocotools needs", *where)
        if box is None:
            data.error('a box is not four finite numbers', *where, repr(bbox)[:80])
            return
        self.boxes.append((box, size))
        (x, y, w, h), detail = box, f'{box}, {area=} in {size[0]:g} x {size[1]:g}'
        if w < 1 or h < 1 or x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0:
            kind = 'a box is inverted, outside of its image or below one pixel: mmdet drops it'
            data.warning(kind, *where, detail)
        elif not isinstance(area, (int, float)) or isinstance(area, bool):
            data.error('an annotation has no valid area, which mmdet reads', *where, repr(area)[:80])
        elif not area > 0:
            data.warning('a box has no area: mmdet drops it', *where, detail)
        elif category in self.names:
            data.counts[str(self.names[category])] += 1
            if min(x, y) < -_TOLERANCE or _is_beyond(x + w, y + h, size):
                data.warning('a box leaves its image', *where, detail)
            mask, is_read = annotation.get('segmentation'), self.needs_masks and category in self.wanted
            if is_read and (wrong := _wrong_segmentation(mask, size)):
                data.error(wrong, *where, repr(mask)[:80])

    def _check_format(self) -> None:
        """Find boxes that have another format than COCO's (x, y, width, height) in pixels."""
        boxes = self.boxes
        is_normalized = all(max(box) <= 1.001 and min(box) >= 0 and max(size) > 2 for box, size in boxes)
        are_corners = all(w > x and h > y and not _is_beyond(w, h, size) for (x, y, w, h), size in boxes)
        leaving = sum(_is_beyond(x + w, y + h, size) for (x, y, w, h), size in boxes)
        if boxes and is_normalized:
            self.data.error('boxes are normalized (0 to 1); COCO has pixels', self.file)
        # A few boxes may leave their images by mistake; and one at a border says that the format is right.
        elif are_corners and len(boxes) >= 5 and leaving >= len(boxes) / 2:
            kind = 'boxes look like corners (x0, y0, x1, y1); COCO has (x, y, width, height)'
            self.data.error(kind, self.file, '', f'{leaving} of {len(boxes)} leave their images')

    def _check_filters(self) -> None:
        """Find images that ``filter_cfg`` drops from training."""
        filters = self.data.dataset.filter_cfg or {}
        empty = set(self.sizes) - self.used if filters.get('filter_empty_gt') else set()
        small = {key for key, size in self.sizes.items() if size and min(size) < filters.get('min_size', 0)}
        if dropped := len(empty | small):
            level = self.data.error if dropped == len(self.sizes) else self.data.warning
            detail = f'{dropped} of {len(self.sizes)}: no box of the classes, or below min_size'
            level('filter_cfg drops images', self.file, '', detail)


def _is_beyond(x: float, y: float, size: tuple[float, float]) -> bool:
    return x > size[0] + _TOLERANCE or y > size[1] + _TOLERANCE


def _is_id(value: Any) -> bool:
    """Return whether a value may be an id: a whole number, which other programs write as 1.0, or text."""
    return type(value) in (int, str) or (type(value) is float and value.is_integer())


def _numbers(value: Any, length: int) -> list[float] | None:
    """Return finite numbers of a list of the given length, else None."""
    is_list = isinstance(value, list) and len(value) == length
    return value if is_list and all(type(v) in (int, float) and math.isfinite(v) for v in value) else None


def _size(image: dict[str, Any]) -> tuple[float, float] | None:
    """Return (width, height) that the file says of an image."""
    size = _numbers([image.get('width'), image.get('height')], 2)
    return (size[0], size[1]) if size and min(size) >= 1 else None


def _wrong_segmentation(value: Any, size: tuple[float, float]) -> str | None:
    """Return why mmdet fails at polygons or an RLE in an image of (width, height)."""
    if not value:
        return 'no "segmentation", which with_mask=True needs'
    if isinstance(value, list):
        is_valid = all(isinstance(polygon, list) and _numbers(polygon, len(polygon)) is not None for polygon in value)
        return None if is_valid else 'a polygon is not a list of finite numbers'
    if not isinstance(value, dict):
        return 'a segmentation is neither polygons nor RLE'
    extent, counts = value.get('size'), value.get('counts')
    if not isinstance(counts, (list, str)) or extent is None:
        return None  # mmdet ignores the box
    if _numbers(extent, 2) != [size[1], size[0]]:
        return 'an RLE has another size than the image'
    if isinstance(counts, list) and (not _numbers(counts, len(counts)) or sum(counts) != math.prod(extent)):
        return 'the counts of an RLE do not add up to its size'
    return None
