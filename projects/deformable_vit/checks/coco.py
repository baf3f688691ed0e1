"""Checks of annotation files in COCO's format, by what mmdet and pycocotools do with each entry."""

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .datasets import Data, Job, check_heads, listed
from .images import check_image
from .problem import Problem, Report

# A box may leave its image by rounding.
_TOLERANCE = 2.0
# The quick form looks at about so many annotations.
_QUICK_ANNOTATIONS = 100_000


def is_coco(data: Data) -> bool:
    """Return whether a dataset reads COCO's format of detection; those of LVIS and panoptic data differ."""
    base, readers = data.base('mmdet.CocoDataset'), ('load_data_list', 'parse_data_info', 'COCOAPI')
    is_plain = base and all(getattr(data.type, name) is getattr(base, name) for name in readers)
    return bool(is_plain and data.settings.get('ann_file'))


def check_coco(data: Data, content: Any, report: Report) -> Iterator[Job]:
    """Report the problems of the content of an annotation file, and yield a job for each image.

    Args:
        content: The JSON.
    """
    file = data.dataset.ann_file
    lists: dict[str, Any] = {}
    errors = len(report.errors)
    for key in ('images', 'annotations', 'categories'):
        value = lists[key] = content.get(key) if isinstance(content, dict) else None
        if key == 'annotations' and not value and not data.is_train:  # images to detect on, such as test-dev
            lists[key] = []
        elif not isinstance(value, list):
            report.append(data.error('not in COCO format: a list is missing', file, '', repr(key)))
        elif not value:
            report.append(data.error('a list is empty', file, '', repr(key)))
        elif wrong := [i for i, entry in enumerate(value) if not isinstance(entry, dict)]:
            report.append(data.error('not in COCO format: an entry is not a dict', file, f'{key} {wrong[0]}'))
    if len(report.errors) > errors:
        return
    report.extend(_Coco(data, file, lists).problems())
    for image in lists['images']:
        if isinstance(name := image.get('file_name'), str):
            record, path = f'image {image.get("id")!r}', Path(data.dataset.data_prefix['img'], name)
            yield partial(check_image, data, path, _size(image), record, not data.quick)


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

    def problems(self) -> Iterator[Problem]:
        for key, entries in (('image', self.images), ('annotation', self.annotations), ('category', self.categories)):
            yield from self._ids(key, entries)
        for image in self.images:
            record = f'image {image.get("id")!r}'
            if not isinstance(image.get('file_name'), str) or not image['file_name']:
                yield self.data.error('an image has no file_name', self.file, record)
            if not _size(image):
                size = f'{image.get("width")!r} x {image.get("height")!r}'
                yield self.data.error('an image has no valid width and height', self.file, record, size)
        yield from self._classes()
        step = max(1, len(self.annotations) // _QUICK_ANNOTATIONS) if self.data.quick else 1
        self.data.is_counted = step == 1
        for annotation in self.annotations[::step]:
            yield from self._annotation(annotation)
        yield from self._format()
        yield from self._filters()

    def _ids(self, key: str, entries: list[dict[str, Any]]) -> Iterator[Problem]:
        values = [entry.get('id') for entry in entries]
        for value in values:
            if not _is_id(value):
                yield self.data.error('an id is neither a whole number nor text', self.file, f'{key} {value!r}')
        for value, number in Counter(v for v in values if _is_id(v)).items():
            record = f'{key} {value!r}'
            if number > 1:
                yield self.data.error(f'duplicate id of {key}', self.file, record, f'{number} times')
            if key == 'annotation' and self.is_evaluated and isinstance(value, str) and not value.isdigit():
                yield self.data.error('pycocotools cannot evaluate an id that is text', self.file, record)
            elif key == 'annotation' and self.is_evaluated and value == 0:
                kind = 'pycocotools takes the id 0 for "no match"; number annotations from 1'
                yield self.data.warning(kind, self.file, record)

    def _classes(self) -> Iterator[Problem]:
        data, classes, file = self.data, self.data.classes, self.file
        for category in self.categories:
            if not isinstance(category.get('name'), str):
                level = data.warning if 'name' in category else data.error
                yield level('the name of a category is not text', file, f'category {category.get("id")!r}')
        if not classes:
            return
        names = tuple(str(name) for name in self.names.values())
        found = [name for name in names if name in classes]
        both = f'the config has {listed(classes)}, the file has {listed(names)}'
        if twice := [name for name, number in Counter(found).items() if number > 1]:
            yield data.error('two categories have one name', file, '', listed(twice))
        elif found and found == list(classes[: len(found)]):
            # mmdet numbers the classes in the order of the file: only the last ones may be missing.
            data.unlisted = dict.fromkeys(classes[len(found) :], both)
            yield from check_heads(data, classes)
        elif set(found) == set(classes):
            kind = f'classes must be in the order of the annotation file, {tuple(found)}'
            yield data.error(kind, file, '', both)
        else:
            unknown = listed([name for name in classes if name not in found])
            kind = f'classes {unknown} are not in the annotation file'
            yield data.error(kind, file, '', f'{both}; set metainfo=dict(classes={names})')

    def _annotation(self, annotation: dict[str, Any]) -> Iterator[Problem]:
        """Follow mmdet's ``CocoDataset.parse_data_info``, then pycocotools."""
        data, file, record = self.data, self.file, f'annotation {annotation.get("id")!r}'
        category, image = (annotation.get(key) for key in ('category_id', 'image_id'))
        for key, value, known in (('category_id', category, self.names), ('image_id', image, self.sizes)):
            if isinstance(value, (dict, list)) or key not in annotation:  # pycocotools looks it up
                yield data.error(f'{key} is neither a whole number nor text', file, record, repr(value)[:80])
                return
            if value not in known:
                yield data.warning(f'unknown {key}: mmdet drops the annotation', file, record, repr(value))
        if image not in self.sizes or annotation.get('ignore'):
            return
        if self.is_evaluated and category in self.names:
            for key in {'iscrowd', 'area'} - annotation.keys():
                yield data.error(f'no {key!r}, which pycocotools needs', file, record)
        box, size = _numbers(annotation.get('bbox'), 4), self.sizes[image]
        area: Any = annotation.get('area')
        if box is None:
            yield data.error('a box is not four finite numbers', file, record, repr(annotation.get('bbox'))[:80])
        if box is None or size is None:
            return
        self.boxes.append((box, size))
        (x, y, w, h), shown = box, f'{box}, {area=} in {size[0]:g} x {size[1]:g}'
        is_outside = w < 0 or h < 0 or x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0
        if not is_outside and (isinstance(area, bool) or not isinstance(area, (int, float))):
            yield data.error('an annotation has no valid area, which mmdet reads', file, record, repr(area)[:80])
        elif is_outside or not area > 0 or w < 1 or h < 1:
            kind = 'a box is inverted, outside of its image, below one pixel or without area: mmdet drops it'
            yield data.warning(kind, file, record, shown)
        elif category in self.names:
            data.counts[str(self.names[category])] += 1
            if min(x, y) < -_TOLERANCE or x + w > size[0] + _TOLERANCE or y + h > size[1] + _TOLERANCE:
                yield data.warning('a box leaves its image', file, record, shown)
            if self.needs_masks and self.names[category] in data.classes:
                for is_fatal, kind, detail in _segmentation(annotation.get('segmentation'), size):
                    yield (data.error if is_fatal else data.warning)(kind, file, record, detail)

    def _format(self) -> Iterator[Problem]:
        """Find boxes that have another format than COCO's (x, y, width, height) in pixels."""
        boxes = self.boxes
        if boxes and all(max(b) <= 1.001 and min(b) >= 0 for b, _ in boxes) and max(max(s) for _, s in boxes) > 2:
            kind = 'boxes are normalized (0 to 1); COCO has pixels'
            yield self.data.error(kind, self.file, '', f'all {len(boxes)} boxes')
            return
        leaving = sum(x + w > s[0] + _TOLERANCE or y + h > s[1] + _TOLERANCE for (x, y, w, h), s in boxes)
        if leaving > len(boxes) // 20 and all(
            w > x > -_TOLERANCE and h > y > -_TOLERANCE and w <= s[0] + _TOLERANCE and h <= s[1] + _TOLERANCE
            for (x, y, w, h), s in boxes
        ):
            kind = 'boxes look like corners (x0, y0, x1, y1); COCO has (x, y, width, height)'
            detail = f'{leaving} of {len(boxes)} leave their images as (x, y, width, height), none as corners'
            level = self.data.error if len(boxes) >= 5 and leaving >= len(boxes) / 2 else self.data.warning
            yield level(kind, self.file, '', detail)

    def _filters(self) -> Iterator[Problem]:
        """Find what ``filter_cfg`` leaves for training."""
        data, classes, filters = self.data, self.data.classes, self.data.dataset.filter_cfg or {}
        wanted = {key for key, name in self.names.items() if not classes or name in classes}
        used = {a.get('image_id') for a in self.annotations if _is_id(i := a.get('category_id')) and i in wanted}
        empty = {key for key in self.sizes if filters.get('filter_empty_gt') and key not in used}
        small = {key for key, size in self.sizes.items() if size and min(size) < filters.get('min_size', 0)}
        if data.is_train and wanted and (empty or small):
            detail = f'{len(empty | small)} of {len(self.sizes)}: {len(empty)} without a box of the classes'
            detail += f', {len(small)} smaller than min_size={filters["min_size"]}' if small else ''
            level = data.error if len(empty | small) == len(self.sizes) else data.warning
            yield level('filter_cfg drops images', self.file, '', detail)


def _is_id(value: Any) -> bool:
    """Return whether a value may be an id: a whole number, which other programs write as 1.0, or text."""
    is_number = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return (is_number and not isinstance(value, bool)) or isinstance(value, str)


def _numbers(value: Any, length: int) -> list[float] | None:
    """Return finite numbers of a list of the given length, else None."""
    if not isinstance(value, (list, tuple)) or len(value) != length:
        return None
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in value):
        return None
    return list(value)


def _size(image: dict[str, Any]) -> tuple[float, float] | None:
    size = _numbers([image.get('width'), image.get('height')], 2)
    return (size[0], size[1]) if size and min(size) >= 1 else None


def _segmentation(value: Any, size: tuple[float, float]) -> Iterator[tuple[bool, str, str]]:
    """Yield what is wrong with polygons or an RLE: whether mmdet fails, or ignores it, then kind and detail."""
    if not value:
        yield True, 'no "segmentation", which with_mask=True needs', ''
    elif isinstance(value, list):
        for polygon in value:
            if not isinstance(polygon, list) or (_numbers(polygon, len(polygon)) is None):
                yield True, 'a polygon is not a list of finite numbers', repr(polygon)[:80]
            elif len(polygon) < 6 or len(polygon) % 2:
                yield False, 'a polygon has fewer than 3 points or half a point', f'{len(polygon)} numbers'
    elif not isinstance(value, dict):
        yield True, 'a segmentation is neither polygons nor RLE', repr(value)[:80]
    elif not isinstance(counts := value.get('counts'), (list, str)) or value.get('size') is None:
        yield False, 'an RLE has no counts or size: mmdet ignores the box', repr(value)[:80]
    elif (extent := _numbers(value['size'], 2)) != [size[1], size[0]]:
        wanted = f'the image is {size[1]:g} x {size[0]:g} (height x width)'
        yield True, 'an RLE has another size than the image', f'{value["size"]!r}; {wanted}'
    elif isinstance(counts, list) and (not _numbers(counts, len(counts)) or sum(counts) != math.prod(extent)):
        yield True, 'the counts of an RLE do not add up to its size', f'{extent!r}'
