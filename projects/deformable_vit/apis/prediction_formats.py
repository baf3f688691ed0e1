"""Predicted boxes as annotations for other tools: COCO, YOLO and Pascal VOC."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmengine.config import Config
from pycocotools import mask as coco_mask

from ..checkpoints import write_atomically
from ..checks import trains_masks
from ..errors import UserError
from .inference import TASKS

FORMATS = ('coco', 'yolo', 'voc')


def check_format(kind: str, config: Config, images: Iterable[Path], videos: Sequence[Path]) -> None:
    """Check that a format holds the predictions of a model.

    Raises:
        UserError: It does not, or two images would have the same file.
    """
    if config.default_scope != 'mmdet':
        task = TASKS[config.default_scope][0]
        raise UserError(f'--format {kind} holds boxes, and the config is for {task}; predict without it')
    if videos:
        raise UserError(f'--format {kind} is for images, and {videos[0]} is a video; extract its frames')
    if kind == 'coco':
        return
    if trains_masks(config.model):
        raise UserError(f'--format {kind} holds boxes only, and the model also predicts masks; choose --format coco')
    stems = Counter(path.absolute().with_suffix('') for path in images)
    if stems and (most := stems.most_common(1)[0])[1] > 1:
        raise UserError(
            f'--format {kind} has a file for each stem, and {most[1]} images are {most[0]}.*; rename them, or choose '
            '--format coco'
        )


def write_format(kind: str, out: Path, classes: Sequence[str], records: Sequence[dict[str, Any]]) -> str:
    """Write the records of ``predictions.json`` in a format, and return where.

    Files have the paths of the images below the directory that holds all of them.

    Args:
        kind: One of ``FORMATS``.
        out: Directory.
        classes: Names.
        records: Of detections, each with ``image``, ``width``, ``height``, ``bboxes``, ``labels`` and ``scores``.
    """
    paths = [Path(record['image']).absolute() for record in records]
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    named = [(path.relative_to(root), record) for path, record in zip(paths, records, strict=True)]
    (out if kind == 'coco' else out / kind).mkdir(parents=True, exist_ok=True)
    if kind == 'coco':
        write_atomically(out / 'coco.json', json.dumps(_coco(classes, named)).encode())
        return f'{out / "coco.json"}, whose file names are relative to {root}'
    directory = out / kind / ('labels' if kind == 'yolo' else 'Annotations')
    for name, record in named:
        file = (directory / name).with_suffix('.txt' if kind == 'yolo' else '.xml')
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, _yolo(record) if kind == 'yolo' else _voc(name, classes, record))
    if kind == 'yolo':
        # YAML reads JSON's strings. Without `path`, the directories are beside the file.
        names = ''.join(f'  {i}: {json.dumps(name, ensure_ascii=False)}\n' for i, name in enumerate(classes))
        write_atomically(out / kind / 'data.yaml', f'train: images\nval: images\nnames:\n{names}'.encode())
    return f'{out / kind}, with the paths of the images below {root}'


def _coco(classes: Sequence[str], named: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, record) in enumerate(named, 1):
        images.append(dict(id=number, file_name=name.as_posix(), width=record['width'], height=record['height']))
        for i, (x0, y0, x1, y1) in enumerate(record['bboxes']):
            one = dict(id=len(annotations) + 1, image_id=number, category_id=record['labels'][i] + 1, iscrowd=0)
            one |= dict(bbox=[x0, y0, x1 - x0, y1 - y0], area=(x1 - x0) * (y1 - y0), score=record['scores'][i])
            if 'masks' in record:
                one |= dict(segmentation=record['masks'][i], area=float(coco_mask.area(record['masks'][i])))
            annotations.append(one)
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def _yolo(record: dict[str, Any]) -> bytes:
    """Return a line for each box: class, center and size, as fractions of the image."""
    width, height, lines = record['width'], record['height'], []
    for label, box in zip(record['labels'], record['bboxes'], strict=True):
        x0, x1 = (min(max(x / width, 0), 1) for x in (box[0], box[2]))
        y0, y1 = (min(max(y / height, 0), 1) for y in (box[1], box[3]))
        lines.append(f'{label} {(x0 + x1) / 2:.6f} {(y0 + y1) / 2:.6f} {x1 - x0:.6f} {y1 - y0:.6f}\n')
    return ''.join(lines).encode()


def _voc(name: Path, classes: Sequence[str], record: dict[str, Any]) -> bytes:
    """Return the XML of an image. Pixels count from 1, and the last ones belong to the box."""
    tree = ElementTree.Element('annotation')
    _add(tree, filename=os.fsencode(name.name))
    width, height = record['width'], record['height']
    _add(ElementTree.SubElement(tree, 'size'), width=width, height=height, depth=3)
    for label, (x0, y0, x1, y1) in zip(record['labels'], record['bboxes'], strict=True):
        one = ElementTree.SubElement(tree, 'object')
        _add(one, name=classes[label], truncated=0, difficult=0)
        left, top = min(max(round(x0), 0), width - 1) + 1, min(max(round(y0), 0), height - 1) + 1
        right, bottom = min(max(round(x1), left), width), min(max(round(y1), top), height)
        _add(ElementTree.SubElement(one, 'bndbox'), xmin=left, ymin=top, xmax=right, ymax=bottom)
    ElementTree.indent(tree)
    return ElementTree.tostring(tree, encoding='utf-8')


def _add(parent: ElementTree.Element, **values: str | int | bytes) -> None:
    for key, value in values.items():
        text = value.decode(errors='replace') if isinstance(value, bytes) else str(value)
        ElementTree.SubElement(parent, key).text = text
