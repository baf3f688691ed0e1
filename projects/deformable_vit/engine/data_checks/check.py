"""Check the datasets of a config: annotation files, then images and masks in parallel."""

import inspect
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..cli import UserError, first_line, is_first_process
from ..data import check_data, is_coco_format
from . import directories
from .coco import check_coco
from .configs import is_local, joined, leaf_datasets, trains_masks
from .images import check_image, check_mask
from .report import Problem, Report
from .voc import check_voc

Job = Callable[[], Iterator[Problem]]
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# The quick form reads annotation files up to this size, about 2 s, and of each dataset at least so many files.
_QUICK_BYTES = 50 * 2**20
_QUICK_FILES = 64
_QUICK_SECONDS = 10.0


def check_datasets(
    config: Config,
    quick: bool = False,
    loaders: Sequence[str] = LOADERS,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Report:
    """Check the datasets of a config.

    Args:
        config: Of mmdet, mmseg or mmpretrain.
        quick: Read every hundredth file for at most 10 s, and no annotation file of more than 50 MB.
        loaders: Dataloaders of the config.
        progress: Called with the number of files that are done and of all files.
        workers: Threads; by default one per core.
    """
    began, report = time.monotonic(), Report()
    for task in () if quick else ('train', 'test'):  # a training does this anyway
        if task == 'train' or 'test_dataloader' in loaders:
            try:
                check_data(config, task)
            except UserError as error:
                _add_once(report, Problem(str(error), 'config'))
    if config.default_scope == 'mmpretrain':
        report.problems.clear()  # found again below, all of them
        report.add(directories.check_directories(config, loaders))
    jobs: list[tuple[str, Job]] = []
    seen: set[str] = set()
    for loader in loaders:
        for dataset in leaf_datasets((config.get(loader) or {}).get('dataset')):
            parts = ('type', 'data_root', 'ann_file', 'data_prefix', 'split')
            identity = json.dumps({part: dataset.get(part) for part in parts}, default=str)
            if identity in seen:  # the test dataset of most configs is that of validation
                continue
            seen.add(identity)
            try:
                found = list(_jobs(dataset, config, loader, quick, report))
            except Exception as error:  # settings of any form; a training says what is wrong with them
                level = 'warning' if quick else 'error'
                report.add([Problem('the dataset cannot be checked', loader, '', first_line(error), level, loader)])  # type: ignore[arg-type]
                continue
            jobs += [(loader, job) for job in (_some(found) if quick else found)]
    _run(jobs, report, progress, workers, began + _QUICK_SECONDS if quick else None)
    return report


def quick_check(config: Config, path: str) -> None:
    """Check some of the data of a training, in the main process only.

    Args:
        config: Before anything is built.
        path: Its file, for messages.

    Raises:
        UserError: Something would stop or spoil training.
    """
    if not is_first_process():
        return
    report = check_datasets(config, quick=True, loaders=LOADERS[:2])
    if report.errors:
        more = f', and {len(report.errors) - 1} more' if len(report.errors) > 1 else ''
        first = report.errors[0]
        where = f'{first.loader}: ' if first.loader else ''
        raise UserError(
            f'{where}{first}{more}; python tools/check_data.py {path} lists all problems, --no-check trains anyway'
        )
    if report.problems:
        print_log(f'data: {report.summary()}; python tools/check_data.py {path} lists them', 'current', logging.WARNING)


def _add_once(report: Report, problem: Problem) -> None:
    if problem not in report.problems:
        report.add([problem])


def _some(jobs: list[Job]) -> list[Job]:
    """Return every hundredth job, or more often for a small dataset."""
    step = max(1, min(100, len(jobs) // _QUICK_FILES))
    return jobs[::step]


def _run(
    jobs: list[tuple[str, Job]],
    report: Report,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    deadline: float | None,
) -> None:
    def run(job: Job) -> list[Problem] | None:
        if deadline is not None and time.monotonic() > deadline:
            return None
        try:
            return list(job())
        except Exception as error:  # of Pillow: files of any content
            return [Problem('the file cannot be checked', str(getattr(job, 'args', ('',))[0]), '', first_line(error))]

    done = 0
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        futures = {pool.submit(run, job): loader for loader, job in jobs}
        for number, future in enumerate(as_completed(futures), 1):
            problems = future.result()
            done += problems is not None
            report.add(_of(problem, futures[future]) for problem in problems or ())
            if progress:
                progress(number, len(jobs))
    report.problems.sort(key=lambda p: (p.level, p.loader, p.kind, p.file, p.record))
    report.checked['images'] += done


def _of(problem: Problem, loader: str) -> Problem:
    return Problem(problem.kind, problem.file, problem.record, problem.detail, problem.level, loader)


def _jobs(dataset: dict[str, Any], config: Config, loader: str, quick: bool, report: Report) -> Iterator[Job]:
    """Check what is read as a whole, and yield a job for each image."""
    if not is_local(dataset):
        report.notes.append(f'{loader}: not on a local disk, not checked')
        return
    decode = not quick
    if config.default_scope == 'mmpretrain':
        yield from _classification(dataset, loader, decode, quick, report)
        return
    kind = _dataset_class(config.default_scope, dataset)
    names = {base.__name__ for base in inspect.getmro(kind)} if kind else set()
    if config.default_scope == 'mmdet' and kind and is_coco_format(kind) and dataset.get('ann_file'):
        classes = (dataset.get('metainfo') or {}).get('classes') or kind.METAINFO.get('classes') or ()
        yield from _coco(dataset, config, loader, quick, report, classes)
    elif 'XMLDataset' in names and dataset.get('ann_file'):
        yield from _voc(dataset, decode, report)
    elif 'BaseSegDataset' in names:
        yield from _segmentation(dataset, kind, loader, report)
    else:
        report.notes.append(f'{loader}: there are no checks for {dataset.get("type")}')


def _dataset_class(scope: str, dataset: dict[str, Any]) -> Any:
    import importlib

    importlib.import_module(f'{scope}.datasets')
    return importlib.import_module(f'{scope}.registry').DATASETS.get(dataset['type'])


def _coco(
    dataset: dict[str, Any], config: Config, loader: str, quick: bool, report: Report, classes: Sequence[str]
) -> Iterator[Job]:
    path = joined(dataset, dataset['ann_file'])
    if not path.is_file():
        problem = Problem('the annotation file does not exist; set data_root and ann_file', str(path), loader=loader)
        if not any(str(path) in other.kind for other in report.problems):
            report.add([problem])
        return
    if quick and path.stat().st_size > _QUICK_BYTES:
        report.notes.append(f'{loader}: {path} is large, and only tools/check_data.py reads it')
        return
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError, OSError) as error:
        report.add([Problem('the annotation file is not JSON', str(path), '', first_line(error), loader=loader)])
        return
    needs_masks = trains_masks(config.model) and loader == 'train_dataloader'
    evaluators = config.get('test_evaluator') if loader == 'test_dataloader' else None
    evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
    # Files of images to detect on, such as test-dev, have no annotations.
    is_unlabeled = all(isinstance(e, dict) and e.get('format_only') for e in evaluators)
    found = check_coco(content, str(path), needs_masks, not is_unlabeled, classes)
    report.add(_of(problem, loader) for problem in found)
    report.checked['annotation files'] += 1
    prefix = joined(dataset, (dataset.get('data_prefix') or {}).get('img', ''))
    images = content.get('images') if isinstance(content, dict) else None
    for image in images if isinstance(images, list) else ():
        if isinstance(image, dict) and isinstance(image.get('file_name'), str):
            width, height = image.get('width'), image.get('height')
            known = (width, height) if isinstance(width, int) and isinstance(height, int) else None
            yield partial(check_image, prefix / image['file_name'], known, f'image {image.get("id")!r}', not quick)


def _voc(dataset: dict[str, Any], decode: bool, report: Report) -> Iterator[Job]:
    path = joined(dataset, dataset['ann_file'])
    if not path.is_file():  # reported by check_data
        return
    root = joined(dataset, (dataset.get('data_prefix') or {}).get('sub_data_root', ''))
    annotations, images = (
        root / dataset.get('ann_subdir', 'Annotations'),
        root / dataset.get('img_subdir', 'JPEGImages'),
    )
    report.checked['annotation files'] += 1
    for name in path.read_text().split():
        yield partial(check_voc, annotations / f'{name}.xml', images / f'{name}.jpg', decode)


def _stems(directory: Path, suffix: str) -> list[str]:
    return sorted(str(file.relative_to(directory))[: -len(suffix)] for file in directory.rglob(f'*{suffix}'))


def _segmentation(dataset: dict[str, Any], kind: Any, loader: str, report: Report) -> Iterator[Job]:
    def setting(name: str, default: Any) -> Any:
        parameter = inspect.signature(kind.__init__).parameters.get(name)
        own = default if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default
        return dataset.get(name, own)

    classes = kind.METAINFO.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    if not classes or isinstance(classes, str):
        report.notes.append(f'{loader}: {dataset["type"]} has no classes, not checked')
        return
    zero = bool(setting('reduce_zero_label', False))
    prefix = dataset.get('data_prefix') or {}
    images, masks = joined(dataset, prefix.get('img_path', '')), joined(dataset, prefix.get('seg_map_path', ''))
    suffix, mask_suffix = setting('img_suffix', '.jpg'), setting('seg_map_suffix', '.png')
    listing = joined(dataset, dataset['ann_file']) if dataset.get('ann_file') else None
    if listing and listing.is_file():
        stems = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
    else:
        stems = _stems(images, suffix)
        for stem in sorted(set(_stems(masks, mask_suffix)) - set(stems)) if prefix.get('seg_map_path') else ():
            problem = Problem(
                'the mask has no image', str(masks / f'{stem}{mask_suffix}'), level='warning', loader=loader
            )
            report.add([problem])
    if not stems:
        report.add([Problem('there are no images', str(images), '', f'*{suffix}', loader=loader)])

    def job(stem: str) -> Iterator[Problem]:
        image, mask = images / f'{stem}{suffix}', masks / f'{stem}{mask_suffix}'
        yield from check_image(image, None)
        yield from check_mask(mask, image, int(zero), len(classes) - (not zero))

    for stem in stems:
        yield partial(job, stem)


def _classification(dataset: dict[str, Any], loader: str, decode: bool, quick: bool, report: Report) -> Iterator[Job]:
    if not directories.is_labeled(dataset):
        report.notes.append(f'{loader}: there are no checks for {dataset.get("type")} without labels')
        return
    directory = directories.image_directory(dataset)
    if file := directories.annotation_file(dataset):
        lines = file.read_text(errors='replace').splitlines() if file.is_file() else []
        for i, line in enumerate(lines, 1):
            if line.strip():
                yield partial(check_image, directory / line.rsplit(' ', 1)[0], None, f'line {i} of {file}', decode)
        return
    if not directory.is_dir():
        return
    extensions = tuple(dataset.get('extensions') or directories.EXTENSIONS)
    for name in directories.class_directories(directory):
        files = (
            Path(root, file)
            for root, _, names in os.walk(directory / name)
            for file in sorted(names)
            if file.lower().endswith(extensions)
        )
        for file in files:
            yield partial(check_image, file, None, '', decode)
            if quick:  # which does not list all of ImageNet
                break
