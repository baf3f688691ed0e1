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
# The quick form looks at the records of about so many annotations.
_QUICK_ANNOTATIONS = 100_000


def is_coco(data: Data) -> bool:
    """Return whether a dataset reads COCO's format of detection; those of LVIS and panoptic data differ."""
    base = data.base('mmdet.CocoDataset')
    readers = ('load_data_list', 'parse_data_info', 'COCOAPI')
    return bool(base and data.settings.get('ann_file')) and all(
        getattr(data.type, name) is getattr(base, name) for name in readers
    )


def check_coco(data: Data, content: Any, report: Report) -> Iterator[Job]:
    """Report the problems of the content of an annotation file, and yield a job for each image.

    Args:
        content: The JSON.
    """
    file = data.path(data.settings['ann_file'])
    lists, problems = _lists(data, content, file)
    report.extend(problems)
    if problems:
        return
    report.extend(_Coco(data, str(file), lists).problems())
    prefix = data.prefix('img')
    for image in lists['images']:
        if isinstance(name := image.get('file_name'), str):
            width, height = image.get('width'), image.get('height')
            size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
            record = f'image {image.get("id")!r}'
            yield partial(check_image, data, prefix / name, size, record, not data.quick)


def _lists(data: Data, content: Any, file: object) -> tuple[dict[str, list[dict[str, Any]]], list[Problem]]:
    lists, problems = {}, []
    for key in ('images', 'annotations', 'categories'):
        value = content.get(key) if isinstance(content, dict) else None
        if key == 'annotations' and not value and not data.is_train:  # images to detect on, such as test-dev
            value = []
        elif not isinstance(value, list):
            problems.append(data.error('not in COCO format: a list is missing', file, '', repr(key)))
        elif not value:
            problems.append(data.error('a list is empty', file, '', repr(key)))
        elif wrong := [i for i, entry in enumerate(value) if not isinstance(entry, dict)]:
            problems.append(data.error('not in COCO format: an entry is not a dict', file, f'{key} {wrong[0]}'))
        lists[key] = value
    return lists, problems


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
        kinds = {kind for m in metrics for kind in _as_list(m.get('metric', 'bbox'))}
        self.needs_masks = bool(data.step('LoadAnnotations').get('with_mask')) if data.is_train else 'segm' in kinds
        self.boxes: list[tuple[list[float], tuple[float, float]]] = []

    def problems(self) -> Iterator[Problem]:
        error, warning, file = self.data.error, self.data.warning, self.file
        for key, entries in (('image', self.images), ('annotation', self.annotations), ('category', self.categories)):
            yield from self._ids(key, entries)
        for image in self.images:
            record = f'image {image.get("id")!r}'
            if not isinstance(image.get('file_name'), str) or not image['file_name']:
                yield error('an image has no file_name', file, record)
            if not _size(image):
                size = f'{image.get("width")!r} x {image.get("height")!r}'
                yield error('an image has no valid width and height', file, record, size)
        names = Counter(str(image.get('file_name')) for image in self.images)
        for name in (name for name, number in names.items() if number > 1):
            yield warning('two images have one file', file, '', repr(name))
        yield from self._classes()
        step = max(1, len(self.annotations) // _QUICK_ANNOTATIONS) if self.data.quick else 1
        self.data.is_counted = step == 1
        for annotation in self.annotations[::step]:
            yield from self._annotation(annotation)
        yield from self._format()
        yield from self._left()

    def _ids(self, key: str, entries: list[dict[str, Any]]) -> Iterator[Problem]:
        values = [entry.get('id') for entry in entries]
        for value in values:
            if value is None:
                yield self.data.error(f'{key} without id', self.file)
            elif not _is_id(value):
                yield self.data.error('an id is neither a whole number nor text', self.file, f'{key} {value!r}')
        if (number := sum(isinstance(value, str) for value in values)) not in (0, len(values)):
            yield self.data.warning(f'some ids of {key} are text', self.file, '', f'{number} of {len(values)}')
        for value, number in Counter(v for v in values if _is_id(v)).items():
            if number > 1:
                yield self.data.error(f'duplicate id of {key}', self.file, f'{key} {value!r}', f'{number} times')
            if key == 'annotation' and self.is_evaluated and isinstance(value, str) and not _is_number(value):
                yield self.data.error('pycocotools cannot evaluate an id that is text', self.file, f'{key} {value!r}')
            elif key == 'annotation' and value == 0 and self.is_evaluated:
                detail = 'number the annotations from 1'
                yield self.data.warning('pycocotools takes the id 0 for "no match"', self.file, f'{key} 0', detail)

    def _classes(self) -> Iterator[Problem]:
        data, classes, file = self.data, self.data.classes, self.file
        for category in self.categories:
            if not isinstance(category.get('name'), str):
                level = data.problem('warning' if 'name' in category else 'error', '').level
                yield data.problem(
                    level, 'the name of a category is not text', file, f'category {category.get("id")!r}'
                )
        if not classes:
            return
        found = [name for name in self.names.values() if name in classes]
        both = f'the config has {listed(classes)}, the file has {listed([str(name) for name in self.names.values()])}'
        if len(found) > len(set(found)):
            twice = [name for name, number in Counter(found).items() if number > 1]
            yield data.error('two categories have one name', file, '', listed(twice))
        elif found == list(classes[: len(found)]) and found:
            # mmdet numbers the classes in the order of the file: only the last ones may be missing.
            data.unlisted = dict.fromkeys(classes[len(found) :], both)
            yield from check_heads(data, classes)
        elif set(found) == set(classes):
            kind = f'classes must be in the order of the annotation file, {tuple(found)}'
            yield data.error(kind, file, '', both)
        else:
            unknown = listed([name for name in classes if name not in found])
            names = tuple(name for name in self.names.values() if isinstance(name, str))
            hint = f'; set metainfo=dict(classes={names})' if not found or not data.settings.get('metainfo') else ''
            yield data.error(f'classes {unknown} are not in the annotation file', file, '', both + hint)

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
            for key in ('iscrowd', 'area'):
                if key not in annotation:
                    yield data.error(f'no {key!r}, which pycocotools needs', file, record, 'iscrowd=0 is usual')
        box, size = _numbers(annotation.get('bbox'), 4), self.sizes[image]
        if box is None:
            yield data.error('a box is not four finite numbers', file, record, repr(annotation.get('bbox'))[:80])
            return
        if size is None:
            return
        (x, y, w, h), shown = box, f'{box} in {size[0]:g} x {size[1]:g}'
        self.boxes.append((box, size))
        area = annotation.get('area')
        if w < 0 or h < 0:
            yield data.warning('an inverted box, width or height is negative: mmdet drops it', file, record, shown)
        elif x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0:
            yield data.warning('a box is outside of its image: mmdet drops it', file, record, shown)
        elif isinstance(area, bool) or not isinstance(area, (int, float)):
            yield data.error('an annotation has no valid area, which mmdet reads', file, record, repr(area)[:80])
        elif not area > 0:
            yield data.warning('zero area: mmdet drops the box', file, record, f'{area=}')
        elif w < 1 or h < 1:
            yield data.warning('a box below one pixel: mmdet drops it', file, record, shown)
        elif category in self.names:
            data.counts[str(self.names[category])] += 1
            if min(x, y) < -_TOLERANCE or x + w > size[0] + _TOLERANCE or y + h > size[1] + _TOLERANCE:
                yield data.warning('a box leaves its image', file, record, shown)
            yield from self._masks(annotation, size, record)

    def _masks(self, annotation: dict[str, Any], size: tuple[float, float], record: str) -> Iterator[Problem]:
        segmentation = annotation.get('segmentation')
        if segmentation:
            found = _segmentation(segmentation, size)
        else:
            found = iter([('error', 'no "segmentation", which with_mask=True needs', '')] if self.needs_masks else [])
        for level, kind, detail in found:
            used = self.needs_masks and self.names.get(annotation['category_id']) in (self.data.classes or ('',))
            yield self.data.problem(
                'error' if level == 'error' and used else 'warning', kind, self.file, record, detail
            )

    def _format(self) -> Iterator[Problem]:
        """Find boxes that have another format than COCO's (x, y, width, height) in pixels."""
        boxes = self.boxes
        if not boxes:
            return
        if all(max(box) <= 1.001 and min(box) >= 0 for box, _ in boxes) and any(max(size) > 2 for _, size in boxes):
            kind = 'boxes are normalized (0 to 1); COCO has pixels'
            yield self.data.error(kind, self.file, '', f'all {len(boxes)} boxes')
            return
        leaving = sum(x + w > s[0] + _TOLERANCE or y + h > s[1] + _TOLERANCE for (x, y, w, h), s in boxes)
        corners = all(
            w > x and h > y and w <= s[0] + _TOLERANCE and h <= s[1] + _TOLERANCE and min(x, y) >= -_TOLERANCE
            for (x, y, w, h), s in boxes
        )
        if corners and leaving >= max(1, len(boxes) // 20):
            kind = 'boxes look like corners (x0, y0, x1, y1); COCO has (x, y, width, height)'
            detail = f'{leaving} of {len(boxes)} leave their images as (x, y, width, height), none as corners'
            is_certain = len(boxes) >= 5 and leaving >= len(boxes) / 2
            yield self.data.problem('error' if is_certain else 'warning', kind, self.file, '', detail)

    def _left(self) -> Iterator[Problem]:
        """Find what mmdet's filters leave for training."""
        data, classes = self.data, self.data.classes
        if not data.is_train or not (filters := data.settings.get('filter_cfg')):
            return
        if not (wanted := {key for key, name in self.names.items() if not classes or name in classes}):
            return
        used = {
            a.get('image_id') for a in self.annotations if _is_id(a.get('category_id')) and a['category_id'] in wanted
        }
        empty = {key for key in self.sizes if filters.get('filter_empty_gt') and key not in used}
        small = {key for key, size in self.sizes.items() if size and min(size) < filters.get('min_size', 0)}
        if empty or small:
            detail = f'{len(empty | small)} of {len(self.sizes)}: {len(empty)} without a box of the classes'
            detail += f', {len(small)} smaller than min_size={filters["min_size"]}' if small else ''
            level = data.error if len(empty | small) == len(self.sizes) else data.warning
            yield level('filter_cfg drops images', self.file, '', detail)


def _is_id(value: Any) -> bool:
    """Return whether a value may be an id: a whole number, which other programs write as 1.0, or text."""
    is_number = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return (is_number and not isinstance(value, bool)) or isinstance(value, str)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


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


def _segmentation(value: Any, size: tuple[float, float]) -> Iterator[tuple[str, str, str]]:
    """Yield level, kind and detail of what is wrong with polygons or an RLE; mmdet ignores what is a warning."""
    if isinstance(value, list):
        for polygon in value:
            if not isinstance(polygon, list):
                yield 'error', 'a polygon is not a list of numbers', repr(polygon)[:80]
            elif len(polygon) < 6 or len(polygon) % 2:
                yield 'warning', 'a polygon has fewer than 3 points or half a point', f'{len(polygon)} numbers'
            elif _numbers(polygon, len(polygon)) is None:
                yield 'error', 'a polygon has a value that is not a finite number', repr(polygon)[:80]
    elif not isinstance(value, dict):
        yield 'error', 'a segmentation is neither polygons nor RLE', repr(value)[:80]
    elif not isinstance(counts := value.get('counts'), (list, str)) or value.get('size') is None:
        yield 'warning', 'an RLE has no counts or size: mmdet ignores the box', repr(value)[:80]
    elif (extent := _numbers(value['size'], 2)) != [size[1], size[0]]:
        wanted = f'the image is {size[1]:g} x {size[0]:g} (height x width)'
        yield 'error', 'an RLE has another size than the image', f'{value["size"]!r}; {wanted}'
    elif isinstance(counts, list) and (
        _numbers(counts, len(counts)) is None or min(counts, default=0) < 0 or sum(counts) != math.prod(extent)
    ):
        yield 'error', 'the counts of an RLE do not add up to its size', f'{extent!r}'
