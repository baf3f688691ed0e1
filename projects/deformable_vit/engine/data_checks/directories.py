"""Checks of classification datasets in ImageNet's layout, a directory for each class.

mmpretrain numbers the directories of each dataset in alphabetical order. A directory that only one of two datasets has
shifts the labels of all classes after it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .configs import is_local, joined, leaf_datasets, listed, numbers_of_classes
from .report import Problem

# As mmpretrain's datasets.
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def image_directory(dataset: dict[str, Any]) -> Path:
    """Return the directory of the images of a dataset of mmpretrain."""
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path', '')
    return joined(dataset, prefix)


def annotation_file(dataset: dict[str, Any]) -> Path | None:
    """Return the file with the labels of a dataset of mmpretrain, or None if directories are the labels."""
    if dataset.get('ann_file'):
        return joined(dataset, dataset['ann_file'])
    meta = joined(dataset, f'meta/{dataset.get("split")}.txt')
    return meta if dataset.get('type') == 'ImageNet' and dataset.get('split') and meta.is_file() else None


def is_labeled(dataset: dict[str, Any]) -> bool:
    """Return whether a dataset is one of mmpretrain's for files on a disk, with labels."""
    known = dataset.get('type') in ('CustomDataset', 'ImageNet')
    return known and is_local(dataset) and dataset.get('with_label', True) and dataset.get('split') != 'test'


def class_directories(directory: Path) -> list[str]:
    """Return the names of the directories that are the classes, in the order of their labels."""
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def has_images(directory: Path, extensions: Sequence[str] = EXTENSIONS) -> bool:
    """Return whether there is an image in a directory or below it."""
    return any(name.lower().endswith(tuple(extensions)) for _, _, names in os.walk(directory) for name in names)


def check_directories(config: Any, loaders: Sequence[str]) -> Iterator[Problem]:
    """Yield the problems of the classes of a classifier's datasets.

    Args:
        config: Of mmpretrain.
        loaders: Dataloaders of the config; each is compared with the first one.
    """
    expected = dict(numbers_of_classes(config.model, 'model'))
    expected |= dict(numbers_of_classes(config.get('data_preprocessor'), 'data_preprocessor'))
    first: tuple[Path, list[str]] | None = None
    for loader in loaders:
        for dataset in leaf_datasets((config.get(loader) or {}).get('dataset')):
            if not is_labeled(dataset):
                continue
            if file := annotation_file(dataset):
                yield from _check_labels(file, min(expected.values(), default=None), loader)
                continue
            directory = image_directory(dataset)
            if not directory.is_dir():
                yield Problem(
                    'the directory does not exist; set data_root and data_prefix', str(directory), loader=loader
                )
                continue
            names = class_directories(directory)
            yield from _check_names(directory, names, dataset, loader)
            if first is None:
                first = directory, names
            elif names != first[1]:
                yield _difference(directory, names, *first, loader)
                continue
            visible = [name for name in names if not name.startswith(('.', '__'))]
            wrong = {key: number for key, number in expected.items() if number != len(visible)}
            if wrong and visible:
                set_keys = ' '.join(f'{key}={len(visible)}' for key in wrong)
                shown = ', '.join(f'{key} is {number}' for key, number in wrong.items())
                detail = f'{shown}, but there are {len(visible)} directories ({listed(visible)}); set {set_keys}'
                yield Problem('another number of classes than the config', str(directory), '', detail, loader=loader)


def _check_names(directory: Path, names: list[str], dataset: dict[str, Any], loader: str) -> Iterator[Problem]:
    where = str(directory)
    if not names:
        yield Problem('there is no directory of a class', where, loader=loader)
    if hidden := [name for name in names if name.startswith(('.', '__'))]:
        yield Problem('a hidden directory counts as a class; remove it', where, '', listed(hidden), loader=loader)
    extensions = dataset.get('extensions') or EXTENSIONS
    if empty := [name for name in names if name not in hidden and not has_images(directory / name, extensions)]:
        # A class without training images; in validation the others keep their labels.
        level = 'error' if loader == 'train_dataloader' else 'warning'
        yield Problem('a class has no images', where, '', listed(empty), level, loader)  # type: ignore[arg-type]
    classes = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, (list, tuple)) and list(classes) != names and sorted(classes) == names:
        detail = f'{tuple(classes)}; the labels are those of {tuple(names)}'
        yield Problem('metainfo.classes are not in alphabetical order', where, '', detail, loader=loader)


def _difference(directory: Path, names: list[str], train: Path, wanted: list[str], loader: str) -> Problem:
    missing = [name for name in wanted if name not in names]
    extra = [name for name in names if name not in wanted]
    parts = [f'no {listed(missing)}'] * bool(missing) + [f'also {listed(extra)}'] * bool(extra)
    detail = f'{" and ".join(parts)}; each class needs a directory in both, which may be empty in {directory.name}'
    kind = f'other classes than in {train}, which shifts the labels'
    return Problem(kind, str(directory), '', detail, loader=loader)


def _check_labels(file: Path, classes: int | None, loader: str) -> Iterator[Problem]:
    """Yield the problems of a file with lines of a path and a label."""
    if not file.is_file():
        yield Problem('the annotation file does not exist', str(file), loader=loader)
        return
    lines = [line for line in file.read_text(errors='replace').splitlines() if line.strip()]
    if not lines:
        yield Problem('the annotation file is empty', str(file), loader=loader)
    for i, line in enumerate(lines, 1):
        label = line.rsplit(' ', 1)[-1]
        if ' ' not in line.strip() or not label.isdigit():
            yield Problem('a line is not PATH LABEL', str(file), f'line {i}', repr(line[:80]), loader=loader)
        elif classes is not None and int(label) >= classes:
            detail = f'{label}; expected 0 to {classes - 1}'
            yield Problem('a label of no class', str(file), f'line {i}', detail, loader=loader)
