"""Checks of classification datasets: a directory for each class, or a file with lines of a path and a label.

mmpretrain numbers the directories of each dataset in alphabetical order. A directory that only one of two datasets has
shifts the labels of all classes after it.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from mmengine.fileio import list_dir_or_file
from mmengine.registry import DATASETS

from .datasets import Data, Job, check_heads, listed, numbers_of_classes
from .images import check_image
from .problem import Problem, Report


def check_classification(data: Data, report: Report, first: list[tuple[Path, list[str]]]) -> Iterator[Job]:
    """Report the problems of the classes of a dataset, and yield a job for each image.

    Args:
        first: The directory of the first dataset and the names of its classes; empty for the first one.
    """
    with DATASETS.switch_scope_and_registry(data.scope) as registry:
        dataset = registry.build({**data.settings, 'pipeline': [], 'lazy_init': True})
    if not dataset.with_label:
        report.notes.append(f'{data.loader}: {data.type.__name__} without labels is not checked')
        return
    data.is_counted = False  # by _check_names
    directory = Path(dataset.img_prefix or '')
    if dataset.ann_file:
        yield from _check_labels(data, Path(dataset.ann_file), directory, report)
        return
    if not directory.is_dir():
        report.append(data.error('the directory does not exist; set data_root and data_prefix', directory))
        return
    names = sorted(list_dir_or_file(directory, list_dir=True, list_file=False))
    files = {name: _images(directory / name, dataset.extensions) for name in names}
    if data.quick:  # which does not list all of ImageNet
        files = {name: islice(found, 1) for name, found in files.items()}
    images = {name: list(found) for name, found in files.items()}
    report.extend(_check_names(data, directory, images))
    if first and names != first[0][1]:
        report.append(_difference(data, directory, names, *first[0]))
    first.append((directory, names))
    for file in (file for found in images.values() for file in found):
        yield partial(check_image, data, file, decode=not data.quick)


def _images(directory: Path, extensions: Iterable[str]) -> Iterator[Path]:
    for name in list_dir_or_file(directory, list_dir=False, recursive=True):
        if name.lower().endswith(tuple(extensions)):
            yield directory / name


def _check_names(data: Data, directory: Path, images: dict[str, list[Path]]) -> Iterator[Problem]:
    names, classes = list(images), (data.settings.get('metainfo') or {}).get('classes')
    if not names:
        yield data.error('there is no directory of a class', directory)
        return
    hidden = [name for name in names if name.startswith(('.', '__'))]
    outputs = min((number for _, number in numbers_of_classes(data.config.model)), default=0)
    if hidden:  # a spare output may be meant for it
        level = data.error if len(names) > outputs else data.warning
        yield level('a hidden directory counts as a class; remove it', directory, '', listed(hidden))
    else:
        yield from check_heads(data, names)
    if empty := [name for name, found in images.items() if name not in hidden and not found]:
        yield data.warning('a class has no images', directory, '', listed(empty))
    if isinstance(classes, (list, tuple)) and list(classes) != names and sorted(classes) == names:
        detail = f'{tuple(classes)}; the labels are those of {tuple(names)}'
        yield data.error('metainfo.classes are not in alphabetical order', directory, '', detail)


def _difference(data: Data, directory: Path, names: Sequence[str], other: Path, wanted: Sequence[str]) -> Problem:
    missing = [name for name in wanted if name not in names]
    extra = [name for name in names if name not in wanted]
    parts = [f'no {listed(missing)}'] * bool(missing) + [f'also {listed(extra)}'] * bool(extra)
    detail = f'{" and ".join(parts)}; each class needs a directory in both, which may be empty in {directory.name}'
    common = min(len(names), len(wanted))
    if names[:common] == wanted[:common]:  # the last classes only
        return data.warning(f'other classes than in {other}', directory, '', detail)
    return data.error(f'other classes than in {other}, which shifts the labels', directory, '', detail)


def _check_labels(data: Data, file: Path, directory: Path, report: Report) -> Iterator[Job]:
    """Check the lines of a path and a label, and yield a job for each image."""
    if not file.is_file():
        report.append(data.error('the annotation file does not exist', file))
        return
    outputs = min((number for _, number in numbers_of_classes(data.config.model)), default=None)
    lines = file.read_text(errors='replace').splitlines()
    if not lines:
        report.append(data.error('the annotation file is empty', file))
    report.checked['annotation files'] += 1
    for i, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdigit():
            report.append(data.error('a line is not PATH LABEL', file, f'line {i}', repr(line[:80])))
            continue
        if outputs is not None and int(label) >= outputs:
            report.append(data.error('a label of no class', file, f'line {i}', f'{label}; expected 0 to {outputs - 1}'))
        yield partial(check_image, data, directory / name, record=f'line {i} of {file}', decode=not data.quick)
