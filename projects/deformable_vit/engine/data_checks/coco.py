"""Checks of an annotation file in COCO's format."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .report import Level, Problem

# A box may leave its image by rounding.
_INVERTED, _OUTSIDE = 'an inverted box: width or height is negative', 'a box is outside of its image'
_SHORT = 'a polygon has fewer than 3 points or half a point'
# mmdet leaves out such annotations, which is an error only if they are many.
_DROPPED = {_INVERTED, _OUTSIDE, 'unknown category_id', 'unknown image_id'}
_MOST_DROPPED = 0.1
_TOLERANCE = 2.0


def check_coco(
    content: Any, file: str, needs_masks: bool, needs_annotations: bool = True, classes: Sequence[str] = ()
) -> Iterator[Problem]:
    """Yield the problems of the content of an annotation file.

    Args:
        content: The JSON.
        file: Its path, for the problems.
        needs_masks: Whether the model trains on masks; then wrong segmentations are errors, else warnings.
        needs_annotations: Whether the file must have annotations.
        classes: Names of the dataset; where the file has all of them, another category may have any name.
    """
    lists = {
        key: content.get(key) if isinstance(content, dict) else None for key in ('images', 'annotations', 'categories')
    }
    for key, value in lists.items():
        if key == 'annotations' and not value and not needs_annotations:
            lists[key] = None
        elif not isinstance(value, list):
            yield Problem('not in COCO format: a list is missing', file, '', repr(key))
            lists[key] = None
        elif not value:
            yield Problem('a list is empty', file, '', repr(key))
        elif wrong := [i for i, entry in enumerate(value) if not isinstance(entry, dict)]:
            yield Problem('not in COCO format: an entry is no dict', file, f'{key} {wrong[0]}')
            lists[key] = None
    images, annotations, categories = (entries or [] for entries in lists.values())
    for key, entries in (('image', images), ('annotation', annotations), ('category', categories)):
        yield from _ids(key, entries, file)
    names = Counter(str(category.get('name')) for category in categories)
    # Without the name of a class mmdet shifts the labels of those behind it.
    unnamed: Level = 'warning' if classes and set(classes) <= names.keys() else 'error'
    for category in categories:
        if not isinstance(category.get('name'), str):
            yield Problem('the name of a category is not text', file, f'category {category.get("id")!r}', '', unnamed)
    for name in (name for name, number in names.items() if number > 1):
        yield Problem('two categories have one name', file, '', repr(name))
    for image in images:
        yield from _image(image, file)
    files = Counter(str(image.get('file_name')) for image in images)
    for name in (name for name, number in files.items() if number > 1):
        yield Problem('two images have one file', file, '', repr(name), 'warning')

    sizes = {i.get('id'): _size(i) for i in images if _is_id(i.get('id'))}
    known = {category.get('id') for category in categories if _is_id(category.get('id'))}
    boxes: list[tuple[list[float], tuple[float, float]]] = []
    dropped = 0
    for annotation in annotations:
        record = f'annotation {annotation.get("id")!r}'
        for key in ('image_id', 'category_id'):
            if isinstance(annotation.get(key), (dict, list)):  # which pycocotools cannot look up
                yield Problem(f'{key} is neither a whole number nor text', file, record, repr(annotation[key])[:80])
                annotation = annotation | {key: None}
        size = sizes.get(annotation.get('image_id'))
        problems = [
            *_references(annotation, known, sizes, file, record),
            *(_box(annotation, size, file, record) if annotation.get('image_id') in sizes else ()),
        ]
        yield from problems
        dropped += any(problem.kind in _DROPPED for problem in problems)
        if annotation.get('image_id') not in sizes:
            continue
        if size and (box := _numbers(annotation.get('bbox'), 4)):
            boxes.append((box, size))
        level = 'error' if needs_masks else 'warning'
        for kind, detail in _segmentation(annotation, size):
            short = kind == _SHORT  # mmdet leaves out the polygon
            yield Problem(kind, file, record, detail, 'warning' if short else level)  # type: ignore[arg-type]
    if dropped > _MOST_DROPPED * len(annotations):
        yield Problem('too many annotations are dropped by mmdet', file, '', f'{dropped} of {len(annotations)}')
    yield from _format(boxes, file)
    used = {i for i in (annotation.get('image_id') for annotation in annotations) if _is_id(i)}
    if annotations and (without := sum(i not in used for i in sizes)):
        yield Problem('images without annotations', file, '', f'{without} of {len(sizes)}', 'warning')


def _references(
    annotation: dict[str, Any], categories: set[Any], images: dict[Any, Any], file: str, record: str
) -> Iterator[Problem]:
    """Find ids that do not exist: mmdet drops the annotations of unknown categories, pycocotools those of images."""
    for key, known in (('category_id', categories), ('image_id', images)):
        if annotation.get(key) not in known:
            yield Problem(f'unknown {key}', file, record, repr(annotation.get(key)), 'warning')


def _is_id(value: Any) -> bool:
    """Return whether a value may be an id: a whole number, which other programs write as 1.0, or text."""
    is_number = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return (is_number and not isinstance(value, bool)) or isinstance(value, str)


def _ids(key: str, entries: list[dict[str, Any]], file: str) -> Iterator[Problem]:
    values = [entry['id'] for entry in entries if entry.get('id') is not None]
    for value in values:
        if not _is_id(value):
            yield Problem('an id is neither a whole number nor text', file, f'{key} {value!r}')
    if (number := sum(isinstance(value, str) for value in values)) not in (0, len(values)):
        yield Problem(f'some ids of {key} are text', file, '', f'{number} of {len(values)}', 'warning')
    ids = Counter(repr(entry.get('id')) for entry in entries)
    for value, number in ids.items():
        if value == 'None':
            yield Problem(f'an {key} has no id' if key != 'category' else 'a category has no id', file, '', f'{number}')
        elif number > 1:
            yield Problem(f'duplicate id of {key}', file, f'{key} {value}', f'{number} times')


def _image(image: dict[str, Any], file: str) -> Iterator[Problem]:
    record = f'image {image.get("id")!r}'
    if not isinstance(image.get('file_name'), str) or not image['file_name']:
        yield Problem('an image has no file_name', file, record)
    if not _size(image):
        yield Problem(
            'an image has no valid width and height', file, record, f'{image.get("width")!r} x {image.get("height")!r}'
        )


def _size(image: dict[str, Any]) -> tuple[float, float] | None:
    size = _numbers([image.get('width'), image.get('height')], 2)
    return (size[0], size[1]) if size and min(size) >= 1 else None


def _numbers(value: Any, length: int) -> list[float] | None:
    """Return finite numbers of a list of the given length, else None."""
    if not isinstance(value, (list, tuple)) or len(value) != length:
        return None
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in value):
        return None
    return list(value)


def _box(annotation: dict[str, Any], size: tuple[float, float] | None, file: str, record: str) -> Iterator[Problem]:
    shown = repr(annotation.get('bbox'))
    box = _numbers(annotation.get('bbox'), 4)
    if box is None:
        yield Problem('a box is not four finite numbers', file, record, shown)
        return
    area = annotation.get('area')
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not math.isfinite(area):
        yield Problem('an annotation has no valid area, which mmdet reads', file, record, repr(area))
    elif area <= 0:
        yield Problem('zero area: mmdet drops the box', file, record, f'{area=}', 'warning')
    x, y, w, h = box
    if w < 0 or h < 0:
        yield Problem(_INVERTED, file, record, shown, 'warning')
    elif w < 1 or h < 1:
        yield Problem('a box below one pixel: mmdet drops it', file, record, shown, 'warning')
    elif size and (x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0):
        yield Problem(_OUTSIDE, file, record, f'{shown} in {size[0]:g} x {size[1]:g}', 'warning')
    elif size and (min(x, y) < -_TOLERANCE or x + w > size[0] + _TOLERANCE or y + h > size[1] + _TOLERANCE):
        yield Problem('a box leaves its image', file, record, f'{shown} in {size[0]:g} x {size[1]:g}', 'warning')


def _format(boxes: list[tuple[list[float], tuple[float, float]]], file: str) -> Iterator[Problem]:
    """Find boxes that have another format than COCO's (x, y, width, height) in pixels."""
    if not boxes:
        return
    # Of one or two boxes each may be as small as that.
    if all(max(box) <= 1.001 and min(box) >= 0 for box, size in boxes) and any(max(size) > 2 for _, size in boxes):
        yield Problem('boxes are normalized (0 to 1); COCO has pixels', file, '', f'all {len(boxes)} boxes')
        return
    leaving = sum(x + w > s[0] + _TOLERANCE or y + h > s[1] + _TOLERANCE for (x, y, w, h), s in boxes)
    corners = all(
        w > x and h > y and w <= s[0] + _TOLERANCE and h <= s[1] + _TOLERANCE and min(x, y) >= -_TOLERANCE
        for (x, y, w, h), s in boxes
    )
    if corners and leaving >= max(1, len(boxes) // 20):
        detail = f'{leaving} of {len(boxes)} leave their images as (x, y, width, height), none as corners'
        yield Problem('boxes look like corners (x0, y0, x1, y1); COCO has (x, y, width, height)', file, '', detail)


def _segmentation(annotation: dict[str, Any], size: tuple[float, float] | None) -> Iterator[tuple[str, str]]:
    value = annotation.get('segmentation')
    if isinstance(value, list):
        for polygon in value:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                points = f'{len(polygon)} numbers' if isinstance(polygon, list) else repr(polygon)[:80]
                yield _SHORT, points
            elif _numbers(polygon, len(polygon)) is None:
                yield 'a polygon has a value that is not a finite number', repr(polygon)[:80]
    elif isinstance(value, dict):
        yield from _rle(value, size)
    elif value is not None:
        yield 'a segmentation is neither polygons nor RLE', repr(value)[:80]


def _rle(value: dict[str, Any], size: tuple[float, float] | None) -> Iterator[tuple[str, str]]:
    extent = _numbers(value.get('size'), 2)
    if extent is None or (size and extent != [size[1], size[0]]):
        wanted = f'; the image is {size[1]:g} x {size[0]:g} (height x width)' if size else ''
        yield 'an RLE has another size than the image', f'{value.get("size")!r}{wanted}'
    counts = value.get('counts')
    if isinstance(counts, list):
        if extent and (
            _numbers(counts, len(counts)) is None or min(counts, default=0) < 0 or sum(counts) != math.prod(extent)
        ):
            yield 'the counts of an RLE do not add up to its size', f'{extent!r}'
    elif not isinstance(counts, str):
        yield 'an RLE has no counts', repr(counts)[:80]
