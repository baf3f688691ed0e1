"""Checks of classification datasets: a directory for each class, or a file with lines of a path and a label.

mmpretrain numbers the directories of each dataset in alphabetical order. A directory that only one of two datasets has
shifts the labels of all classes after it.
"""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from mmengine.fileio import list_dir_or_file

from .datasets import Data, Job, check_heads, listed, numbers_of_classes
from .images import check_image, missing_file
from .problem import Problem, Report

# Directory of the first dataset, and the names of its classes.
First = dict[Path, list[str]]


def check_classification(data: Data, report: Report, first: First) -> Iterator[Job]:
    """Report the problems of the classes of a dataset, and yield a job for each image.

    Args:
        first: Filled by the first dataset, with which the others are compared.
    """
    dataset, data.is_counted = data.build(), False  # by _check_names
    directory, file = Path(dataset.img_prefix or ''), Path(dataset.ann_file or '')
    if dataset.with_label and dataset.ann_file:
        yield from _check_labels(data, file, directory, report)
        return
    if not directory.is_dir():
        report.append(data.error('the directory does not exist; set data_root and data_prefix', directory))
        return
    names = sorted(list_dir_or_file(directory, list_dir=True, list_file=False)) if dataset.with_label else ['.']
    files = {name: _images(directory / name, dataset.extensions) for name in names}
    # The quick form does not list all of ImageNet.
    images = {name: list(islice(found, 1 if data.quick else None)) for name, found in files.items()}
    if dataset.with_label:
        report.extend(_check_names(data, directory, images, first))
    for path in (path for found in images.values() for path in found):
        yield partial(check_image, data, path, decode=not data.quick)


def _images(directory: Path, extensions: Iterable[str]) -> Iterator[Path]:
    for name in list_dir_or_file(directory, list_dir=False, recursive=True):
        if name.lower().endswith(tuple(extensions)):
            yield directory / name


def _check_names(data: Data, directory: Path, images: dict[str, list[Path]], first: First) -> Iterator[Problem]:
    names, classes = list(images), (data.settings.get('metainfo') or {}).get('classes')
    if not names:
        yield data.error('there is no directory of a class', directory)
        return
    if hidden := [name for name in names if name.startswith(('.', '__'))]:
        outputs = min((number for _, number in numbers_of_classes(data.config.model)), default=0)
        level = data.error if len(names) > outputs else data.warning  # a spare output may be meant for it
        yield level('a hidden directory counts as a class; remove it', directory, '', listed(hidden))
    else:
        yield from check_heads(data, names)
    if empty := [name for name, found in images.items() if name not in hidden and not found]:
        yield data.warning('a class has no images', directory, '', listed(empty))
    if isinstance(classes, (list, tuple)) and list(classes) != names and sorted(classes) == names:
        detail = f'{tuple(classes)}; the labels are those of {tuple(names)}'
        yield data.error('metainfo.classes are not in alphabetical order', directory, '', detail)
    other, wanted = next(iter(first.items()), (directory, names))
    first.setdefault(other, wanted)
    if names != wanted:
        missing, extra = ([n for n in a if n not in b] for a, b in ((wanted, names), (names, wanted)))
        parts = [f'no {listed(missing)}'] * bool(missing) + [f'also {listed(extra)}'] * bool(extra)
        detail = f'{" and ".join(parts)}; each class needs a directory in both, which may be empty in {directory.name}'
        is_shifted = any(a != b for a, b in zip(names, wanted, strict=False))
        level, shifts = (data.error, ', which shifts the labels') if is_shifted else (data.warning, '')
        yield level(f'other classes than in {other}{shifts}', directory, '', detail)


def _check_labels(data: Data, file: Path, directory: Path, report: Report) -> Iterator[Job]:
    """Check the lines of a path and a label, and yield a job for each image."""
    if problem := missing_file(data, file, 'annotation file'):
        report.append(problem)
        return
    report.checked['annotation files'] += 1
    outputs = min((number for _, number in numbers_of_classes(data.config.model)), default=math.inf)
    for i, line in enumerate(file.read_text(errors='replace').splitlines(), 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdigit():
            report.append(data.error('a line is not PATH LABEL', file, f'line {i}', repr(line[:80])))
        elif int(label) >= outputs:
            report.append(data.error('a label of no class', file, f'line {i}', f'{label}; expected 0 to {outputs - 1}'))
        else:
            yield partial(check_image, data, directory / name, record=f'line {i} of {file}', decode=not data.quick)
