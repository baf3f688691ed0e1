"""A user's classes against the user's data, before anything is trained: the hosts drop in silence what differs."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import mmcv
import numpy as np
from mmengine.config import Config

from .cli import UserError

# Masks of a data set that are looked into.
_MASKS = 100


def check_data(config: Config, task: Literal['train', 'test']) -> None:
    """Compare the class names that a config gives its data sets with annotations, masks and heads.

    Data sets without ``metainfo.classes`` are the hosts' own, with their own classes, and are left alone; so is what
    does not lie on a local disk.

    Raises:
        UserError: A class that an annotation file does not know or knows in another order, annotations without a box of
            any class, masks of other classes, or a head for another number of classes.
    """
    if config.default_scope not in ('mmdet', 'mmseg'):
        return
    for loader in ('train_dataloader', 'val_dataloader') if task == 'train' else ('test_dataloader',):
        for dataset in _datasets((config.get(loader) or {}).get('dataset')):
            classes = (dataset.get('metainfo') or {}).get('classes')
            if not classes or dataset.get('backend_args') or '://' in str(dataset.get('data_root')):
                continue
            if isinstance(classes, str):
                raise UserError(f"{loader}: metainfo.classes is the text {classes!r}; write a tuple, such as ('cat',)")
            if config.default_scope == 'mmdet':
                _check_boxes(dataset, classes, needs_masks=task == 'train' and _has(config.model, 'mask_head'))
            else:
                _check_masks(dataset, classes)
            for key, number in _numbers_of_classes(config.model, 'model'):
                if number != len(classes):
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


def _check_boxes(dataset: dict[str, Any], classes: Sequence[str], needs_masks: bool) -> None:
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    kind = DATASETS.get(dataset['type'])
    if kind is None or not issubclass(kind, CocoDataset) or not dataset.get('ann_file'):
        return
    path = _joined(dataset, dataset['ann_file'])
    if not path.is_file():
        raise UserError(f'annotation file {path} does not exist; set data_root and ann_file')
    try:
        content = json.loads(path.read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        found = [a for a in content['annotations'] if names[a['category_id']] in classes]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'annotation file {path} is not in COCO format: {type(error).__name__}: {error}') from error
    both = f'the config has {_listed(classes)}, {path} has {_listed(list(names.values()))}'
    if unknown := [name for name in classes if name not in names.values()]:
        raise UserError(f'classes {_listed(unknown)} are not in the annotation file: {both}')
    # mmdet numbers the classes as the file does, and takes their names from the config.
    if (order := [name for name in names.values() if name in classes]) != list(classes):
        raise UserError(f'classes have to stand in the order of the annotation file: {tuple(order)}; {both}')
    if not found:
        raise UserError(
            f'none of the {len(content["annotations"])} boxes in the annotation file is of one of the classes: {both}'
        )
    without = sum(not annotation.get('segmentation') for annotation in found)
    if needs_masks and without:
        raise UserError(
            f'{without} of {len(found)} boxes in {path} have no "segmentation", which a mask head learns from; '
            'take a detector without masks, such as RetinaNet'
        )


def _check_masks(dataset: dict[str, Any], classes: Sequence[str]) -> None:
    from mmseg.registry import DATASETS

    kind = DATASETS.get(dataset['type'])
    if kind is None or kind.METAINFO.get('classes'):  # a host's data set, whose numbers mmseg maps to the classes named
        return
    prefix = dataset.get('data_prefix') or {}
    pictures, folder = _joined(dataset, prefix.get('img_path', '')), _joined(dataset, prefix.get('seg_map_path', ''))
    for place, suffix, key in (
        (pictures, dataset.get('img_suffix', '.jpg'), 'img'),
        (folder, dataset.get('seg_map_suffix', '.png'), 'seg_map'),
    ):
        if not any(place.rglob(f'*{suffix}')):
            raise UserError(f'there is no {place}/*{suffix}; set data_root, data_prefix and {key}_suffix')
    files = list(islice(sorted(folder.rglob(f'*{dataset.get("seg_map_suffix", ".png")}')), _MASKS))
    steps = [step.get('reduce_zero_label') for step in dataset.get('pipeline', ()) if 'reduce_zero_label' in step]
    zero = bool(next((s for s in steps if s is not None), dataset.get('reduce_zero_label', False)))
    meant = f'{int(zero)} to {len(classes) - (not zero)} for the classes {_listed(classes)}'
    seen: set[int] = set()
    for file in files:
        mask = mmcv.imread(file, flag='unchanged', backend='pillow')  # as mmseg reads it: the indices of a palette
        if mask is None or mask.squeeze().ndim != 2:
            raise UserError(f'mask {file} is not a picture of one channel, whose values are classes')
        values = set(np.unique(mask).tolist()) - {255} - ({0} if zero else set())
        if wrong := sorted(value for value in values if value >= len(classes) + zero):
            raise UserError(f'mask {file} has the values {wrong[:10]}; expected {meant}, and 255 for what to ignore')
        seen |= values
    if not seen:
        raise UserError(f'the first {len(files)} masks in {folder} hold none of the values {meant}')


def _has(node: Any, key: str) -> bool:
    """Whether ``key`` stands anywhere below ``node``."""
    if isinstance(node, dict):
        return key in node or any(_has(value, key) for value in node.values())
    return isinstance(node, (list, tuple)) and any(_has(value, key) for value in node)


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
