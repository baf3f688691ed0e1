"""A user's classes against the user's data, before anything is trained: the hosts drop in silence what differs."""

import importlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from mmengine.config import Config

from .cli import UserError

# Masks of a data set that are looked into.
_MASKS = 100


def check_data(config: Config, task: Literal['train', 'test']) -> None:
    """Compare the class names that a config gives its data sets with annotations, masks and heads.

    Data sets without ``metainfo.classes`` are the hosts' own, with their own classes, and are left alone.

    Raises:
        UserError: A class that an annotation file does not know, annotations without a box of any class, masks of other
            classes, or a head for another number of classes.
    """
    for loader in ('train_dataloader', 'val_dataloader') if task == 'train' else ('test_dataloader',):
        for dataset in _datasets((config.get(loader) or {}).get('dataset')):
            classes = (dataset.get('metainfo') or {}).get('classes')
            if not classes:
                continue
            if config.default_scope == 'mmdet':
                _check_boxes(dataset, classes)
            elif config.default_scope == 'mmseg':
                _check_masks(dataset, classes)
            for key, number in _numbers_of_classes(config.model, 'model'):
                if config.default_scope != 'mmpretrain' and number != len(classes):
                    raise UserError(
                        f'{key}.num_classes is {number}, but {loader} names {len(classes)} classes: {_listed(classes)}'
                    )


def _datasets(node: Any) -> Iterator[dict[str, Any]]:
    """A data set, or those within a wrapper such as ``RepeatDataset`` or ``ConcatDataset``."""
    if isinstance(node, Sequence):
        for item in node:
            yield from _datasets(item)
    elif isinstance(node, dict):
        inner = node.get('dataset', node.get('datasets'))
        yield from [node] if inner is None else _datasets(inner)


def _check_boxes(dataset: dict[str, Any], classes: Sequence[str]) -> None:
    from mmdet.datasets import CocoDataset

    kind = importlib.import_module('mmdet.registry').DATASETS.get(dataset['type'])
    path = _joined(dataset, dataset.get('ann_file', ''))
    if kind is None or not issubclass(kind, CocoDataset) or '://' in str(path):
        return
    if not path.is_file():
        raise UserError(f'annotation file {path} does not exist; set data_root and ann_file')
    try:
        content = json.loads(path.read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        boxes = [annotation['category_id'] for annotation in content['annotations']]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'annotation file {path} is not in COCO format: {type(error).__name__}: {error}') from error
    both = f'the config has {_listed(classes)}, {path} has {_listed(list(names.values()))}'
    if unknown := [name for name in classes if name not in names.values()]:
        raise UserError(f'classes {_listed(unknown)} are not in the annotation file: {both}')
    if not any(names.get(box) in classes for box in boxes):
        raise UserError(f'none of the {len(boxes)} boxes in the annotation file is of one of the classes: {both}')


def _check_masks(dataset: dict[str, Any], classes: Sequence[str]) -> None:
    folder = _joined(dataset, (dataset.get('data_prefix') or {}).get('seg_map_path', ''))
    if '://' in str(folder):
        return
    suffix = dataset.get('seg_map_suffix', '.png')
    files = list(islice(sorted(folder.rglob(f'*{suffix}')), _MASKS))
    if not files:
        raise UserError(f'there are no masks {folder}/*{suffix}; set data_root and data_prefix.seg_map_path')
    zero = any(step.get('reduce_zero_label') for step in dataset.get('pipeline', ()))
    meant = f'{1 if zero else 0} to {len(classes) - (not zero)} for the classes {_listed(classes)}'
    seen: set[int] = set()
    for file in files:
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if mask is None or mask.ndim != 2:
            raise UserError(f'mask {file} is not a picture of one channel, whose values are classes')
        values = set(np.unique(mask).tolist()) - {255} - ({0} if zero else set())
        if wrong := sorted(value for value in values if value >= len(classes) + zero):
            raise UserError(f'mask {file} has the values {wrong[:10]}; expected {meant}, and 255 for what to ignore')
        seen |= values
    if not seen:
        raise UserError(f'the first {len(files)} masks in {folder} hold none of the values {meant}')


def _joined(dataset: dict[str, Any], name: str) -> Path:
    return Path(dataset.get('data_root') or '', name)


def _numbers_of_classes(node: Any, key: str) -> Iterator[tuple[str, int]]:
    """Where below ``node`` a ``num_classes`` stands, and which."""
    if isinstance(node, dict):
        if isinstance(node.get('num_classes'), int):
            yield key, node['num_classes']
        for name, value in node.items():
            yield from _numbers_of_classes(value, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _numbers_of_classes(value, f'{key}.{i}')


def _listed(names: Sequence[str]) -> str:
    shown = ', '.join(map(repr, names[:20]))
    return f'{shown} and {len(names) - 20} more' if len(names) > 20 else shown or 'none'
