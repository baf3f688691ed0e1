"""Compare a config's class names with its data before training: OpenMMLab silently drops what does not match."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import mmcv
import numpy as np
from mmengine.config import Config

from .cli import UserError

# How many masks of a dataset are read.
_MASKS = 100


def check_data(config: Config, task: Literal['train', 'test']) -> None:
    """Compare the class names of a config's datasets with annotations, masks and heads.

    Datasets without ``metainfo.classes`` have built-in classes and are skipped; so are datasets that are not on a local
    disk.

    Raises:
        UserError: A class is missing in the annotation file or has another position there, no annotation is of any
            class, a mask has the value of no class, or a head has another number of classes.
    """
    if config.default_scope not in ('mmdet', 'mmseg'):
        return
    for loader in ('train_dataloader', 'val_dataloader') if task == 'train' else ('test_dataloader',):
        for dataset in inner_datasets((config.get(loader) or {}).get('dataset')):
            classes = (dataset.get('metainfo') or {}).get('classes')
            if not classes or dataset.get('backend_args') or '://' in str(dataset.get('data_root')):
                continue
            if isinstance(classes, str):
                raise UserError(f"{loader}: metainfo.classes is the text {classes!r}; write a tuple, such as ('cat',)")
            if config.default_scope == 'mmdet':
                needs_masks = task == 'train' and _has(config.model, 'mask_head')
                _check_boxes(dataset, classes, needs_masks, needs_all=loader == 'train_dataloader')
            else:
                _check_masks(dataset, classes)
            wrong = {key: number for key, number in num_classes(config.model, 'model') if number != len(classes)}
            if wrong:
                raise UserError(
                    f'{", ".join(f"{key} is {number}" for key, number in wrong.items())}, but {loader} has '
                    f'{len(classes)} classes ({_listed(classes)}); set '
                    + ' '.join(f'{key}={len(classes)}' for key in wrong)
                )


def inner_datasets(node: Any) -> Iterator[dict[str, Any]]:
    """Yield a dataset, or those within a wrapper such as ``RepeatDataset`` or ``ConcatDataset``."""
    if isinstance(node, Sequence):
        for item in node:
            yield from inner_datasets(item)
    elif isinstance(node, dict):
        inner = node.get('dataset', node.get('datasets'))
        yield from [node] if inner is None else inner_datasets(inner)


def _check_boxes(dataset: dict[str, Any], classes: Sequence[str], needs_masks: bool, needs_all: bool) -> None:
    from mmdet.datasets import CocoDataset, XMLDataset
    from mmdet.registry import DATASETS

    kind = DATASETS.get(dataset['type'])
    if kind is None or not dataset.get('ann_file'):
        return
    path = _joined(dataset, dataset['ann_file'])
    if issubclass(kind, (CocoDataset, XMLDataset)) and not path.is_file():
        raise UserError(f'annotation file {path} does not exist; set data_root and ann_file')
    if issubclass(kind, CocoDataset):
        _check_coco(path, classes, needs_masks)
    elif issubclass(kind, XMLDataset):
        prefix = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
        _check_xml(path, _joined(dataset, prefix) / dataset.get('ann_subdir', 'Annotations'), classes, needs_all)


def _check_xml(path: Path, directory: Path, classes: Sequence[str], needs_all: bool) -> None:
    """Compare classes with Pascal VOC's XML files in ``directory``, whose names are the lines of the file ``path``.

    Training data needs every class; test data may lack rare ones.
    """
    found: set[str] = set()
    for name in path.read_text().splitlines():
        if not name:
            continue
        file = directory / f'{name}.xml'
        try:
            found |= {element.text or '' for element in ElementTree.parse(file).getroot().findall('object/name')}
        except (OSError, ElementTree.ParseError) as error:
            raise UserError(f'{file}, which {path} lists, cannot be read: {error}') from error
    unknown = [name for name in classes if name not in found]
    if len(unknown) == len(classes) or (unknown and needs_all):
        raise UserError(
            f'classes {_listed(unknown)} are in no annotation file: the config has {_listed(classes)}, {directory} has '
            f'{_listed(sorted(found))}'
        )


def _check_coco(path: Path, classes: Sequence[str], needs_masks: bool) -> None:
    try:
        content = json.loads(path.read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        found = [a for a in content['annotations'] if names[a['category_id']] in classes]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'annotation file {path} is not in COCO format: {type(error).__name__}: {error}') from error
    both = f'the config has {_listed(classes)}, {path} has {_listed(list(names.values()))}'
    if unknown := [name for name in classes if name not in names.values()]:
        raise UserError(f'classes {_listed(unknown)} are not in the annotation file: {both}')
    # mmdet numbers the classes in the order of the file, and names them in the order of the config.
    if (order := [name for name in names.values() if name in classes]) != list(classes):
        raise UserError(f'classes must be in the order of the annotation file, {tuple(order)}: {both}')
    if not found:
        raise UserError(
            f'none of the {len(content["annotations"])} boxes in the annotation file is of one of the classes: {both}'
        )
    without = sum(not annotation.get('segmentation') for annotation in found)
    if needs_masks and without:
        raise UserError(
            f'{without} of {len(found)} boxes in {path} have no "segmentation", which training a mask head needs; '
            'use a detector without masks, such as RetinaNet'
        )


def _check_masks(dataset: dict[str, Any], classes: Sequence[str]) -> None:
    from mmseg.registry import DATASETS

    kind = DATASETS.get(dataset['type'])
    if kind is None or kind.METAINFO.get('classes'):  # a dataset with built-in classes, which mmseg maps to `classes`
        return
    prefix = dataset.get('data_prefix') or {}
    images, masks = _joined(dataset, prefix.get('img_path', '')), _joined(dataset, prefix.get('seg_map_path', ''))
    for directory, suffix, key in (
        (images, dataset.get('img_suffix', '.jpg'), 'img'),
        (masks, dataset.get('seg_map_suffix', '.png'), 'seg_map'),
    ):
        if not any(directory.rglob(f'*{suffix}')):
            raise UserError(f'there is no {directory}/*{suffix}; set data_root, data_prefix and {key}_suffix')
    files = list(islice(sorted(masks.rglob(f'*{dataset.get("seg_map_suffix", ".png")}')), _MASKS))
    arguments = [t.get('reduce_zero_label') for t in dataset.get('pipeline', ()) if 'reduce_zero_label' in t]
    zero = bool(next((a for a in arguments if a is not None), dataset.get('reduce_zero_label', False)))
    expected = f'{int(zero)} to {len(classes) - (not zero)} for the classes {_listed(classes)}'
    seen: set[int] = set()
    for file in files:
        mask = mmcv.imread(file, flag='unchanged', backend='pillow')  # like mmseg: reads the indices of a palette
        if mask is None or mask.squeeze().ndim != 2:
            raise UserError(f'mask {file} does not have one channel; save the class of each pixel as a gray value')
        values = set(np.unique(mask).tolist()) - {255} - ({0} if zero else set())
        if wrong := sorted(value for value in values if value >= len(classes) + zero):
            raise UserError(f'mask {file} has the values {wrong[:10]}; expected {expected}, and 255 for ignored pixels')
        seen |= values
    if not seen:
        raise UserError(f'the first {len(files)} masks in {masks} have none of the values {expected}')


def _has(node: Any, key: str) -> bool:
    """Return whether ``key`` occurs anywhere below ``node``."""
    if isinstance(node, dict):
        return key in node or any(_has(value, key) for value in node.values())
    return isinstance(node, (list, tuple)) and any(_has(value, key) for value in node)


def _joined(dataset: dict[str, Any], name: str) -> Path:
    return Path(dataset.get('data_root') or '', name)


def num_classes(node: Any, key: str) -> Iterator[tuple[str, int]]:
    """Yield key and value of every ``num_classes`` below ``node``."""
    if isinstance(node, dict):
        if isinstance(node.get('num_classes'), int):
            yield f'{key}.num_classes', node['num_classes']
        for name, value in node.items():
            yield from num_classes(value, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from num_classes(value, f'{key}.{i}')


def _listed(names: Sequence[str]) -> str:
    shown = ', '.join(map(repr, names[:20]))
    return f'{shown} and {len(names) - 20} more' if len(names) > 20 else shown or 'none'
