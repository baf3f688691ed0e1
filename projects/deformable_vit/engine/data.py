"""Compare a config's class names with its data before training: OpenMMLab silently drops what does not match."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import mmcv
import numpy as np
from mmengine.config import Config

from .cli import UserError, first_line
from .data_checks.configs import is_local, joined, leaf_datasets, listed, trains_masks, wrong_heads
from .data_checks.directories import check_directories

# How many masks of a dataset are read.
_MASKS = 100


def check_data(config: Config, task: Literal['train', 'test']) -> None:
    """Compare the class names of a config's datasets with annotations, masks and heads.

    Datasets of detection and segmentation without ``metainfo.classes`` have built-in classes and are skipped; so are
    datasets that are not on a local disk. Classification has a directory for each class: those of training and
    validation are compared, because mmpretrain numbers them in each by itself.

    Raises:
        UserError: A class is missing in the annotation file or has another position there, no annotation is of any
            class, a mask has the value of no class, a head has another number of classes, or training and validation
            have directories of other classes.
    """
    loaders = ('train_dataloader', 'val_dataloader') if task == 'train' else ('test_dataloader',)
    if config.default_scope == 'mmpretrain':
        for problem in check_directories(config, loaders):
            if problem.level == 'error':
                raise UserError(f'{problem.loader}: {problem}')
        return
    for loader in loaders:
        in_voc_files: set[str] = set()
        voc_classes: Sequence[str] = ()
        for dataset in leaf_datasets((config.get(loader) or {}).get('dataset')):
            classes = (dataset.get('metainfo') or {}).get('classes')
            if not classes or not is_local(dataset):
                continue
            if isinstance(classes, str):
                raise UserError(f"{loader}: metainfo.classes is the text {classes!r}; write a tuple, such as ('cat',)")
            if config.default_scope == 'mmdet':
                needs_masks = task == 'train' and trains_masks(config.model)
                if found := _check_boxes(dataset, classes, needs_masks, is_test=task == 'test'):
                    in_voc_files |= found
                    voc_classes = classes
            else:
                _check_masks(dataset, classes)
            if wrong := list(wrong_heads(config.model, len(classes))):
                raise UserError(
                    f'{", ".join(f"{key} is {value}" for key, value, _ in wrong)}, but {loader} has '
                    f'{len(classes)} classes ({listed(classes)}); set '
                    + ' '.join(f'{key}={expected}' for key, _, expected in wrong)
                )
        # All datasets of a training together need every class; test data may lack rare ones.
        unknown = [name for name in voc_classes if name not in in_voc_files]
        if unknown and loader == 'train_dataloader':
            raise UserError(
                f'classes {listed(unknown)} are in no annotation file: the config has {listed(voc_classes)}, the files '
                f'of {loader} have {listed(sorted(in_voc_files))}'
            )


def _check_boxes(dataset: dict[str, Any], classes: Sequence[str], needs_masks: bool, is_test: bool) -> set[str] | None:
    """Check a dataset of mmdet; return the class names in the files of a Pascal VOC dataset."""
    from mmdet.datasets import CocoDataset, XMLDataset
    from mmdet.registry import DATASETS

    kind = DATASETS.get(dataset['type'])
    if kind is None or not dataset.get('ann_file'):
        return None
    path = joined(dataset, dataset['ann_file'])
    if issubclass(kind, (CocoDataset, XMLDataset)) and not path.is_file():
        raise UserError(f'annotation file {path} does not exist; set data_root and ann_file')
    # Panoptic files have another form and another API.
    if issubclass(kind, CocoDataset) and kind.COCOAPI is CocoDataset.COCOAPI:
        _check_coco(path, classes, needs_masks, is_test)
    elif issubclass(kind, XMLDataset):
        prefix = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
        return _check_xml(path, joined(dataset, prefix) / dataset.get('ann_subdir', 'Annotations'), classes)
    return None


def _check_xml(path: Path, directory: Path, classes: Sequence[str]) -> set[str]:
    """Return the class names in Pascal VOC's XML files in ``directory``, which the lines of the file ``path`` name.

    Raises:
        UserError: A file cannot be read, or none has one of the classes.
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
    if not found & set(classes):
        raise UserError(
            f'classes {listed(classes)} are in no annotation file: the config has {listed(classes)}, {directory} has '
            f'{listed(sorted(found))}'
        )
    return found


def is_coco_format(kind: Any) -> bool:
    """Return whether a dataset class reads COCO's format of detection; those of LVIS and panoptic data differ."""
    from mmdet.datasets import CocoDataset

    readers = ('load_data_list', 'COCOAPI')
    return issubclass(kind, CocoDataset) and all(getattr(kind, name) is getattr(CocoDataset, name) for name in readers)


def _check_coco(path: Path, classes: Sequence[str], needs_masks: bool, is_test: bool) -> None:
    try:
        content = json.loads(path.read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        if is_test and 'annotations' not in content:  # such as test-dev
            return
        # mmdet leaves out annotations of other categories.
        found = [a for a in content['annotations'] if names.get(a['category_id']) in classes]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'annotation file {path} is not in COCO format: {type(error).__name__}: {error}') from error
    both = f'the config has {listed(classes)}, {path} has {listed(list(names.values()))}'
    if unknown := [name for name in classes if name not in names.values()]:
        raise UserError(f'classes {listed(unknown)} are not in the annotation file: {both}')
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
    images, masks = joined(dataset, prefix.get('img_path', '')), joined(dataset, prefix.get('seg_map_path', ''))
    for directory, suffix, key in (
        (images, dataset.get('img_suffix', '.jpg'), 'img'),
        (masks, dataset.get('seg_map_suffix', '.png'), 'seg_map'),
    ):
        if not any(directory.rglob(f'*{suffix}')):
            raise UserError(f'there is no {directory}/*{suffix}; set data_root, data_prefix and {key}_suffix')
    files = list(islice(sorted(masks.rglob(f'*{dataset.get("seg_map_suffix", ".png")}')), _MASKS))
    arguments = [t.get('reduce_zero_label') for t in dataset.get('pipeline', ()) if 'reduce_zero_label' in t]
    zero = bool(next((a for a in arguments if a is not None), dataset.get('reduce_zero_label', False)))
    expected = f'{int(zero)} to {len(classes) - (not zero)} for the classes {listed(classes)}'
    seen: set[int] = set()
    for file in files:
        try:
            mask = mmcv.imread(file, flag='unchanged', backend='pillow')  # like mmseg: reads the indices of a palette
        except Exception as error:  # a damaged file can raise anything
            raise UserError(f'mask {file} is truncated or broken: {first_line(error)}') from error
        if mask is None or mask.squeeze().ndim != 2:
            raise UserError(f'mask {file} does not have one channel; save the class of each pixel as a gray value')
        values = set(np.unique(mask).tolist()) - {255} - ({0} if zero else set())
        if wrong := sorted(value for value in values if value >= len(classes) + zero):
            raise UserError(f'mask {file} has the values {wrong[:10]}; expected {expected}, and 255 for ignored pixels')
        seen |= values
    if not seen:
        raise UserError(f'the first {len(files)} masks in {masks} have none of the values {expected}')
