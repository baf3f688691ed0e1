"""Checks of annotation files in COCO's format, by what mmdet does with each entry."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import first_line
from .classes import check_names
from .coco_boxes import check_format, finite, is_beyond, wrong_segmentation
from .coco_loading import check_loading, read_json
from .datasets import Data, Job, trains_masks
from .evaluation import FIX, check_evaluation, is_evaluated
from .images import check_image

_Entries = list[dict[str, Any]]


def is_coco(data: Data) -> bool:
    """Return whether a dataset reads COCO's format of detection; those of LVIS and panoptic data differ."""
    base, readers = data.base('mmdet.CocoDataset'), ('load_data_list', 'parse_data_info')
    return bool(base and all(getattr(data.type, name) is getattr(base, name) for name in readers))


def check_coco(data: Data) -> Iterator[Job]:
    """Check an annotation file, and yield a job for each image."""
    file, prefix = data.dataset.ann_file, data.dataset.data_prefix
    if not file:
        data.error('the dataset has no ann_file')
        return
    if 'img' not in prefix:
        data.error(f"data_prefix has no 'img', which {data.type.__name__} reads", '', '', f'{prefix}')
        return
    try:
        content = read_json(Path(file))
    except (ValueError, OSError) as error:
        data.error('the annotation file is not JSON', file, '', first_line(error))
        return
    lists: dict[str, _Entries] = {}
    for key in ('images', 'annotations', 'categories'):
        value = content.get(key) if isinstance(content, dict) else None
        if key == 'annotations' and value in (None, []) and isinstance(content, dict):  # images without labels
            lists[key] = []
        elif not value or not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            data.error('not in COCO format: a list of dicts is missing or empty', file, '', repr(key))
        else:
            lists[key] = value
    if len(lists) == 3:
        yield from _Coco(data, file, content, lists).check()


class _Coco:
    """The entries of a file, and what training and evaluation need of them."""

    def __init__(self, data: Data, file: str, content: dict[str, Any], lists: dict[str, _Entries]) -> None:
        self.data, self.file, self.content = data, file, content
        self.classes, self.is_evaluated = data.classes, is_evaluated(data)
        self.images, self.annotations, self.categories = lists.values()
        self.names = {c.get('id'): c.get('name') for c in self.categories if _is_id(c.get('id'))}
        self.sizes = {i.get('id'): _size(i) for i in self.images if _is_id(i.get('id'))}
        self.texts = dict(category_id=set(map(str, self.names)), image_id=set(map(str, self.sizes)))
        self.is_readable = True  # every id can be looked up
        self.boxes: list[tuple[list[float], tuple[float, float], Any]] = []
        # Annotations that mmdet reads, and how many it drops, by name of the category and reason.
        self.used: _Entries = []
        self.dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def check(self) -> Iterator[Job]:
        """Check all entries, and yield a job for each image."""
        data, before = self.data, len(self.data.report.errors)
        self._check_ids('image', self.images, 'file_name')
        self._check_ids('annotation', self.annotations)
        self._check_ids('category', self.categories, 'name')
        check_names(data, self.file, [str(name) for name in self.names.values()], self.is_evaluated)
        for image in self.images:
            if _size(image) is None:
                shown = f'{image.get("width")!r} x {image.get("height")!r}'
                data.error('an image has no valid width and height', self.file, f'image {image.get("id")!r}', shown)
        for annotation in self.annotations:
            self._check_annotation(annotation)
        check_format(data, self.file, self.boxes)
        kept: set[Any] = set(self.sizes)
        if not self.classes or len(data.report.errors) > before:
            data.is_counted = False  # mmdet would fail, or number the classes in another way
        else:
            kept = check_loading(data, self.content, self.dropped)
            data.is_counted &= bool(self.annotations) or data.is_train
        self._check_masks(kept)
        if self.is_readable:
            check_evaluation(data, self.content)
        for image in self.images:
            is_read = not _is_id(image.get('id')) or image['id'] in kept
            if is_read and isinstance(name := image.get('file_name'), str):
                path, record = Path(data.dataset.data_prefix['img'], name), f'image {image.get("id")!r}'
                yield partial(check_image, data, path, _size(image), record)

    def _check_ids(self, key: str, entries: _Entries, name: str | None = None) -> None:
        """Check the ids of all entries of a kind, and that they have a name."""
        seen: dict[Any, Any] = {}
        for entry in entries:
            record = f'{key} {(value := entry.get("id"))!r}'
            if name and not isinstance(entry.get(name), str):
                self.data.error(f'{key} without a {name}', self.file, record)
            if not _is_id(value) and (key != 'annotation' or 'id' not in entry or isinstance(value, (dict, list))):
                self.data.error('an id is neither a whole number nor text', self.file, record)
                self.is_readable = False
            elif key == 'image' and seen.get(value, '') == entry.get('file_name'):
                self.data.warning('an image is listed twice: mmdet takes the last entry', self.file, record)
            elif value in seen:
                self.data.error(f'duplicate id of {key}', self.file, record)
            elif key != 'annotation' or _is_known(entry.get('image_id'), self.sizes):
                seen[value] = entry.get('file_name')

    def _check_annotation(self, annotation: dict[str, Any]) -> None:
        """Follow mmdet's ``CocoDataset.parse_data_info``."""
        data, where = self.data, (self.file, f'annotation {annotation.get("id")!r}')
        category, image, bbox = (annotation.get(key) for key in ('category_id', 'image_id', 'bbox'))
        for key, value, known in (('category_id', category, self.names), ('image_id', image, self.sizes)):
            if isinstance(value, (dict, list)) or key not in annotation:  # pycocotools looks it up
                data.error(f'{key} is neither a whole number nor text', *where, repr(value)[:80])
                self.is_readable = False
                return
            if value not in known:
                as_text = f'{value!r}, and the id is a number; {FIX}' if value in self.texts[key] else repr(value)
                data.warning(f'unknown {key}: mmdet drops the annotation', *where, as_text)
        name = str(self.names.get(category))
        if image not in self.sizes:
            self.dropped[name]['on an unknown image'] += 1
            return
        size, area, crowd = self.sizes[image], annotation.get('area'), annotation.get('iscrowd', 0)
        if size is None or annotation.get('ignore'):
            self.dropped[name]['with "ignore"'] += 1
            return
        if isinstance(crowd, str):
            data.error("'iscrowd' is text, which counts as 1", *where, repr(crowd))
        box = finite(bbox, 4)
        if box is None:
            # mmdet finds that NaN is outside of the image.
            level = data.warning if _has_nan(bbox) and not self.is_evaluated else data.error
            level('a box is not four finite numbers', *where, repr(bbox)[:80])
            self.dropped[name]['without four finite numbers'] += 1
            return
        self.boxes.append((box, size, area))
        (x, y, w, h), detail = box, f'{box}, {area=} in {size[0]:g} x {size[1]:g}'
        if x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0 or w <= 0 or h <= 0:
            data.warning('a box is inverted or outside of its image: mmdet drops it', *where, detail)
            self.dropped[name]['inverted or outside of their images'] += 1
        elif not isinstance(area, (int, float)):
            data.error('an annotation has no valid area, which mmdet reads', *where, f'{area!r}'[:80] + f'; {FIX}')
        elif area <= 0 or w < 1 or h < 1:
            data.warning('a box has no area or is below one pixel: mmdet drops it', *where, detail)
            self.dropped[name]['without area or below one pixel'] += 1
        elif category in self.names:
            if crowd:
                self.dropped[name]['with iscrowd=1, which trains nothing'] += 1
            if is_beyond(-x, -y, (0, 0)) or is_beyond(x + w, y + h, size):
                data.warning('a box leaves its image', *where, detail)
            if not self.classes or name in self.classes:
                self.used.append(annotation)
            else:
                data.counts.add_box(name, image, w, h)

    def _check_masks(self, kept: set[Any]) -> None:
        """Check the masks of the annotations that the pipeline reads; ``kept`` are the images of the dataset."""
        step, data = self.data.step('LoadAnnotations'), self.data
        if not step.get('with_mask'):
            return
        without = [a for a in self.used if not a.get('segmentation')]
        advice = ''
        if len(without) == len(self.used) and not trains_masks(data.config.get('model')):
            advice = f'no annotation has one: set with_mask=False in LoadAnnotations of {data.loader}'
        for annotation in self.used:
            if annotation['image_id'] not in kept:
                continue
            mask, size = annotation.get('segmentation'), self.sizes[annotation['image_id']]
            level, wrong = wrong_segmentation(mask, size or (0, 0), bool(step.get('poly2mask', True)))
            if wrong:
                report = data.error if level == 'error' else data.warning
                detail = advice or repr(mask)[:80]
                report(wrong, self.file, f'annotation {annotation.get("id")!r}', detail)


def _is_id(value: Any) -> bool:
    """Return whether a value may be an id: a whole number, which other programs write as 1.0, or text."""
    return type(value) in (int, str) or (type(value) is float and value.is_integer())


def _has_nan(box: Any) -> bool:
    """Return whether a box is four numbers, of which one is NaN."""
    is_box = isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
    return is_box and any(map(math.isnan, box))


def _is_known(value: Any, ids: dict[Any, Any]) -> bool:
    return not isinstance(value, (dict, list)) and value in ids


def _size(image: dict[str, Any]) -> tuple[float, float] | None:
    """Return (width, height) that the file says of an image."""
    size = finite([image.get('width'), image.get('height')], 2)
    return (size[0], size[1]) if size and min(size) >= 1 else None
