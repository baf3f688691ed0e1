"""A repaired copy of an annotation file in COCO's format: only what is certain is changed, and each change is named."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mmcv
from mmengine.config import Config
from pycocotools import mask as coco_masks

from ..errors import UserError, first_line
from .coco import is_coco
from .coco_boxes import finite, wrong_segmentation
from .datasets import Data, leaf_datasets
from .problem import Report

_Entry = dict[str, Any]


@dataclass
class Repair:
    """How many entries have been changed in each way, and those that only a person can repair."""

    changes: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)


def repair_file(config: Config, loaders: Sequence[str], out: Path) -> tuple[Repair, str]:
    """Write a repaired copy of the annotation file of a config's datasets; return what it does, and the original.

    Nothing is written where there is nothing to repair.

    Raises:
        UserError: The loaders read several files or another format, the file cannot be read, or ``out`` exists.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f'--fix {out}: the file exists; choose a new name')
    if not out.absolute().parent.is_dir():
        raise UserError(f'--fix {out}: the directory does not exist')
    data = _only_dataset(config, loaders)
    file = Path(data.dataset.ann_file)
    try:
        # Editors of other systems write UTF-8 with a mark in front, or UTF-16.
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f'--fix: {file} is not JSON: {first_line(error)}') from error
    lists = [content.get(key) if isinstance(content, dict) else None for key in ('images', 'annotations', 'categories')]
    if not all(isinstance(part, list) and all(isinstance(entry, dict) for entry in part) for part in lists):
        raise UserError(f'--fix: {file} is not in COCO format: it has no lists images, annotations and categories')
    done = repair(content, Path(data.dataset.data_prefix.get('img', '')))
    if file.read_bytes()[:2] in (b'\xef\xbb', b'\xff\xfe', b'\xfe\xff'):
        done.changes['file: written as UTF-8 without a mark in front, which pycocotools cannot read'] += 1
    if done.changes:
        text = json.dumps(content)
        with out.open('x', encoding='utf-8') as stream:
            stream.write(text)
    return done, str(file)


def _only_dataset(config: Config, loaders: Sequence[str]) -> Data:
    found: dict[Path, Data] = {}
    for loader in loaders:
        for settings in leaf_datasets((config.get(loader) or {}).get('dataset')):
            data = Data(settings, loader, config, Report())
            if is_coco(data) and data.is_local and data.dataset.ann_file:
                found.setdefault(Path(data.dataset.ann_file).resolve(), data)
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise UserError(f'--fix: no local annotation file in COCO format in {", ".join(loaders)}')
    files = ', '.join(f'{path} ({data.loader})' for path, data in found.items())
    raise UserError(f'--fix repairs one annotation file, and here are {len(found)}: {files}; choose with --only')


def repair(content: dict[str, Any], images: Path) -> Repair:
    """Repair the content of an annotation file in place; ``images`` is the directory of its images."""
    done = Repair()
    _repair_images(content, images, done)
    for key, reference in (('images', 'image_id'), ('categories', 'category_id')):
        _number(content[key], content['annotations'], reference, done)
    sizes = {image.get('id'): finite([image.get('width'), image.get('height')], 2) for image in content['images']}
    categories = {category.get('id') for category in content['categories']}
    kept = []
    for annotation in content['annotations']:
        for key, known in (('image_id', sizes.keys()), ('category_id', categories)):
            value = annotation.get(key)
            if isinstance(value, (dict, list)) or value not in known:
                done.changes[f'annotation: dropped, its {key} is that of no entry'] += 1
                break
        else:
            if _repair_annotation(annotation, sizes[annotation['image_id']], done):
                kept.append(annotation)
    ids = [annotation.get('id') for annotation in kept]
    if not all(type(key) is int and key > 0 for key in ids) or len(set(ids)) < len(ids):
        done.changes['annotation: ids numbered from 1'] += len(kept)
        for number, annotation in enumerate(kept, 1):
            annotation['id'] = number
    content['annotations'] = kept
    return done


def _repair_images(content: dict[str, Any], directory: Path, done: Repair) -> None:
    """Drop entries that repeat another, and read sizes that are missing from the images."""
    kept: dict[str, _Entry] = {}
    for image in content['images']:
        key = repr((image.get('id'), image.get('file_name')))
        if key in kept:
            done.changes['image: dropped, the entry is there twice'] += 1
            continue
        kept[key] = image
        sizes = [_as_number(image, name, done) for name in ('width', 'height')]
        if not (size := finite(sizes, 2)) or min(size) < 1:
            try:
                height, width = mmcv.imread(str(directory / str(image.get('file_name')))).shape[:2]
            except (OSError, AttributeError):
                done.left.append(f'image {image.get("id")!r}: no valid width and height, and the image cannot be read')
            else:
                image.update(width=width, height=height)
                done.changes['image: width and height read from the image'] += 1
    content['images'] = list(kept.values())


def _number(entries: list[_Entry], annotations: list[_Entry], reference: str, done: Repair) -> None:
    """Make the ids of images or categories whole numbers where they, or the references to them, are not."""
    ids = [entry.get('id') for entry in entries]
    references = [annotation.get(reference) for annotation in annotations]
    if all(type(value) is int for value in [*ids, *references]):
        return
    plain = [_plain(value) for value in ids]
    if None in plain or len(set(plain)) < len(plain):
        done.left.append(f'{reference}: ids are missing, or two entries have the same one')
        return
    highest = max((int(value) for value in plain if value and value.isdecimal()), default=0)
    numbers: dict[str | None, int] = {}
    for value in plain:
        highest += not str(value).isdecimal()
        numbers[value] = int(value) if value and value.isdecimal() else highest
    for entry, value in zip(entries, plain, strict=True):
        if entry['id'] != numbers[value] or type(entry['id']) is not int:
            entry['id'] = numbers[value]
            done.changes[f'{"image" if reference == "image_id" else "category"}: the id is a whole number'] += 1
    for annotation in annotations:
        number = numbers.get(_plain(value := annotation.get(reference)))
        if number is not None and (type(value) is not int or value != number):
            annotation[reference] = number
            done.changes[f'annotation: {reference} is the whole number of the entry'] += 1


def _plain(value: Any) -> str | None:
    """Return the same text for 7, 7.0 and '7'."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    text = str(value).strip()
    return str(int(text)) if text.isdecimal() and text.isascii() else text


def _as_number(entry: _Entry, key: str, done: Repair) -> Any:
    """Return a value of an entry, and replace the text of a number by the number."""
    if isinstance(value := entry.get(key), str):
        try:
            entry[key] = int(value) if value.strip().isdecimal() else float(value)
        except ValueError:
            return value
        done.changes[f'{key} is a number instead of text'] += 1
    return entry.get(key)


def _repair_annotation(annotation: _Entry, size: list[float] | None, done: Repair) -> bool:
    """Repair an annotation of an image of (width, height); return False for one that shows nothing."""
    record = f'annotation {annotation.get("id")!r}'
    if _as_number(annotation, 'iscrowd', done) is None:
        annotation['iscrowd'] = 0
        done.changes['annotation: iscrowd=0 added'] += 1
    mask = _repair_mask(annotation, size, done)
    box = _repair_box(annotation, mask, done)
    if box is None:
        done.left.append(f'{record}: the box is not four finite numbers, {annotation.get("bbox")!r}'[:200])
        return True
    x, y, w, h = box
    if min(w, h) < 0:
        done.left.append(f'{record}: the box is inverted, {box}')
        return True
    if min(w, h) == 0 or x + w <= 0 or y + h <= 0 or (size and (x >= size[0] or y >= size[1])):
        done.changes['annotation: dropped, its box is empty or outside of the image'] += 1
        return False
    area = _as_number(annotation, 'area', done)
    if type(area) not in (int, float) or not area > 0:
        mask_area = float(coco_masks.area(mask)) if mask else 0.0
        annotation['area'] = mask_area or w * h
        done.changes[f'annotation: area of the {"mask" if mask_area else "box"}'] += 1
    return True


def _repair_box(annotation: _Entry, mask: Any, done: Repair) -> list[float] | None:
    """Return the box, which is that of the mask where the annotation has no valid one; None without any."""
    values = annotation.get('bbox')
    if isinstance(values, list) and any(isinstance(value, str) for value in values):
        entry = {str(i): value for i, value in enumerate(values)}
        annotation['bbox'] = [_as_number(entry, key, done) for key in entry]
    box = finite(annotation.get('bbox'), 4)
    if (
        mask
        and (box is None or min(box[2:]) <= 0)
        and min((found := _box_of(annotation['segmentation'], mask))[2:]) > 0
    ):
        annotation['bbox'] = box = found
        done.changes['annotation: box of the mask'] += 1
    return box


def _box_of(segmentation: Any, mask: Any) -> list[float]:
    """Return the box (x, y, width, height) of polygons, or of an RLE."""
    if not isinstance(segmentation, list):
        return [float(value) for value in coco_masks.toBbox(mask)]
    xs, ys = ([value for polygon in segmentation for value in polygon[start::2]] for start in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _repair_mask(annotation: _Entry, size: list[float] | None, done: Repair) -> Any:
    """Put polygons into the form that pycocotools reads; return the mask as RLE, or None without a valid one."""
    mask = annotation.get('segmentation')
    if isinstance(mask, list) and len(mask) >= 6 and len(mask) % 2 == 0 and finite(mask, len(mask)):
        annotation['segmentation'] = mask = [mask]
        done.changes['annotation: the polygon put into a list of polygons'] += 1
    if not size or not mask or wrong_segmentation(mask, (size[0], size[1]))[1]:
        return None
    if isinstance(mask, list):
        whole = [polygon for polygon in mask if len(polygon) >= 6 and len(polygon) % 2 == 0]
        if len(whole) < len(mask):
            done.changes['annotation: polygons of fewer than three points dropped'] += 1
            annotation['segmentation'] = mask = whole
    width, height = map(int, size)
    if isinstance(mask, list):
        return coco_masks.merge(coco_masks.frPyObjects(mask, height, width))
    return coco_masks.frPyObjects(mask, height, width) if isinstance(mask['counts'], list) else mask
