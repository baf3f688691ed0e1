"""Checks of classification datasets: a directory for each class, or a file with lines of a path and a label.

mmpretrain numbers the directories of each dataset in alphabetical order. A directory that only one of two datasets has
shifts the labels of all classes after it.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from mmengine.fileio import list_dir_or_file

from .datasets import Data, Job, check_heads, listed, numbers_of_classes
from .images import check_image

# Directories of the datasets and names of their classes; they are compared with those of the first one.
First = list[tuple[Path, list[str]]]


def check_classification(data: Data, first: First) -> Iterator[Job]:
    """Check the classes of a dataset, and yield a job for each image."""
    dataset, data.is_counted = data.dataset, False
    directory = Path(dataset.img_prefix or '')
    if dataset.with_label and dataset.ann_file:
        yield from _check_labels(data, Path(dataset.ann_file), directory)
        return
    if not directory.is_dir():
        data.error('the directory does not exist; set data_root and data_prefix', directory)
        return
    names = sorted(list_dir_or_file(directory, list_dir=True, list_file=False))
    if dataset.with_label:
        _check_names(data, directory, names, first)
    for name in names:
        files = list_dir_or_file(directory / name, list_dir=False, recursive=True)
        images = (directory / name / file for file in files if file.lower().endswith(tuple(dataset.extensions)))
        # The quick form does not list all of ImageNet.
        for image in islice(images, 1 if data.quick else None):
            yield partial(check_image, data, image)


def _check_names(data: Data, directory: Path, names: list[str], first: First) -> None:
    classes = (data.settings.get('metainfo') or {}).get('classes')
    check_heads(data, names)
    if isinstance(classes, (list, tuple)) and list(classes) != names and sorted(classes) == names:
        detail = f'{tuple(classes)}; the labels are those of {tuple(names)}'
        data.error('metainfo.classes are not in alphabetical order', directory, '', detail)
    first.append((directory, names))
    other, wanted = first[0]
    if names != wanted:
        is_shifted = any(a != b for a, b in zip(names, wanted, strict=False))
        level, shifts = (data.error, ', which shifts the labels') if is_shifted else (data.warning, '')
        detail = f'only one has {listed(sorted({*names} ^ {*wanted}))}; each class needs a directory in both'
        level(f'other classes than in {other}{shifts}', directory, '', detail)


def _check_labels(data: Data, file: Path, directory: Path) -> Iterator[Job]:
    """Check the lines of a path and a label, and yield a job for each image."""
    outputs = min((number for _, number in numbers_of_classes(data.config.model)), default=math.inf)
    for i, line in enumerate(file.read_text(errors='replace').splitlines(), 1):
        name, _, label = line.strip().rpartition(' ')
        if name and label.isdigit() and int(label) < outputs:
            yield partial(check_image, data, directory / name, record=f'line {i} of {file}')
        else:
            data.error('a line is not PATH LABEL', file, f'line {i}', f'{line[:80]!r}; labels are 0 to {outputs - 1}')
