"""Checks of classification datasets: a directory for each class, or a file with lines of a path and a label.

mmpretrain numbers the directories of each dataset in alphabetical order. A directory that only one of two datasets has
shifts the labels of all classes after it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from mmengine.fileio import list_dir_or_file

from .counts import ClassCounts
from .datasets import Data, Job, check_heads, listed, numbers_of_classes
from .images import IMAGE_SUFFIXES, check_image

# Directories of the datasets and names of their classes; they are compared with those of the first one.
First = list[tuple[Path, list[str]]]
# The quick form does not list all of ImageNet, but so many files of each directory.
_QUICK_FILES = 100


def check_classification(data: Data, first: First) -> Iterator[Job]:
    """Check the classes of a dataset, and yield a job for each image."""
    dataset, base = data.dataset, data.base('mmpretrain.CustomDataset')
    directory = Path(dataset.img_prefix or '')
    if data.type.load_data_list is not base.load_data_list:  # it may have images and labels of any form
        data.is_counted = False
        return
    if dataset.with_label and dataset.ann_file:
        yield from _check_labels(data, Path(dataset.ann_file), directory)
        return
    if dataset.ann_file:
        data.is_counted = False
        for i, line in enumerate(Path(dataset.ann_file).read_text(errors='replace').splitlines(), 1):
            yield partial(check_image, data, directory / line, record=f'line {i} of {dataset.ann_file}')
        return
    if not directory.is_dir():
        data.error('the directory does not exist; set data_root and data_prefix', directory)
        return
    names = sorted(list_dir_or_file(directory, list_dir=True, list_file=False)) if dataset.with_label else ['']
    if not names:
        data.error('no directory of a class', directory, '', 'each class needs one with its images')
        return
    if dataset.with_label:
        _check_names(data, directory, names, first)
    yield from _check_directories(data, directory, names)


def _check_directories(data: Data, directory: Path, names: Sequence[str]) -> Iterator[Job]:
    """Count the images of each class, and those that are not read; yield a job for each image."""
    extensions, read, left = tuple(data.dataset.extensions), 0, Counter[str]()
    classes = data.classes if len(data.classes) == len(names) else names
    data.is_counted = bool(data.dataset.with_label) and not data.quick
    data.counts = ClassCounts(classes)
    for name, shown in zip(names, classes, strict=True):
        files = list_dir_or_file(directory / name, list_dir=False, recursive=True)
        images, others = list[str](), Counter[str]()
        for file in islice(files, _QUICK_FILES if data.quick else None):
            if file.lower().endswith(extensions):
                images.append(file)
            elif (suffix := Path(file).suffix.lower()) in IMAGE_SUFFIXES:
                others[suffix] += 1
        for i, image in enumerate(images):
            data.counts.add_image(shown, i)
            if not data.quick or not i:  # the quick form takes one of each class
                yield partial(check_image, data, directory / name / image)
        read, left = read + len(images), left + others
        if not images:
            data.causes[shown] = f'the directory has {_shown(others)}' if others else 'the directory has no images'
    detail = f'{left.total()} of {read + left.total()} are {_shown(left)}'
    fix = f'set extensions={(*sorted(extensions), *left)} in the dataset'
    if not read:
        has = f'{detail}; {fix}' if left else f'{len(names)} directories without images'
        data.error('the dataset reads no image', directory, '', has)
        return
    if left:
        data.warning('images are left out', directory, '', f'{detail}; {fix}')
    if data.causes and data.quick:
        data.warning('classes without images', directory, '', f'{listed([*data.causes])}')


def _shown(suffixes: Counter[str]) -> str:
    return ', '.join(f'{suffix!r} ({number})' for suffix, number in suffixes.most_common(5))


def _check_names(data: Data, directory: Path, names: list[str], first: First) -> None:
    """Compare the names of directories with the classes of the config, and with those of the first dataset."""
    classes = data.classes
    check_heads(data, names)
    if classes and len(classes) != len(names):  # mmpretrain refuses it
        detail = f'{len(classes)} classes in metainfo or of the type: {listed(classes)}; directories: {listed(names)}'
        data.error('each class needs a directory', directory, '', detail)
    elif list(classes) != names and sorted(classes) == names:
        detail = f'{classes}; the labels are those of {tuple(names)}'
        data.error('metainfo.classes are not in alphabetical order', directory, '', detail)
    if hidden := [name for name in names if name.startswith('.')]:
        data.warning('a hidden directory counts as a class', directory, '', listed(hidden))
    first.append((directory, names))
    other, wanted = first[0]
    if names != wanted:
        is_shifted = any(a != b for a, b in zip(names, wanted, strict=False))
        level, shifts = (data.error, ', which shifts the labels') if is_shifted else (data.warning, '')
        detail = f'only one has {listed(sorted({*names} ^ {*wanted}))}; each class needs a directory in both'
        level(f'other classes than in {other}{shifts}', directory, '', detail)


def _check_labels(data: Data, file: Path, directory: Path) -> Iterator[Job]:
    """Check the lines of a path and a label, and yield a job for each image."""
    outputs = min((number for _, number in numbers_of_classes(data.config.get('model'))), default=math.inf)
    for i, line in enumerate(file.read_text(errors='replace').splitlines(), 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdecimal() or int(label) >= outputs:
            data.error('a line is not PATH LABEL', file, f'line {i}', f'{line[:80]!r}; labels are 0 to {outputs - 1}')
            continue
        classes = data.classes
        data.counts.add_image(classes[int(label)] if int(label) < len(classes) else f'label {label}', i)
        yield partial(check_image, data, directory / name, record=f'line {i} of {file}')
