"""Check the datasets of a config: annotation files, then images and masks in parallel."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import first_line
from .coco import check_coco, is_coco
from .datasets import LOADERS, Data, Job, leaf_datasets, listed
from .directories import First, check_classification
from .masks import check_segmentation
from .problem import Problem, Report
from .voc import check_voc

# The quick form reads of each dataset at least so many images, and no more after so many seconds.
_QUICK_FILES = 64
_QUICK_SECONDS = 10.0


def check(
    config: Config,
    *,
    quick: bool = False,
    loaders: Sequence[str] = LOADERS,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Report:
    """Check the datasets of a config, without building the model.

    Args:
        config: Of mmdet, mmseg or mmpretrain, with the command line's options.
        quick: Read every hundredth image for at most 10 s, and only the headers of images.
        loaders: Dataloaders of the config.
        progress: Called with the number of files that are done and of all files.
        workers: Threads; by default one per core.

    Returns:
        A list of problems, errors first.
    """
    deadline = time.monotonic() + _QUICK_SECONDS if quick else None
    report, checked, jobs = Report(), [], []
    read = lru_cache(maxsize=1)(lambda path: json.loads(path.read_bytes()))
    first: First = {}
    seen: set[str] = set()
    for loader in loaders:
        for settings in leaf_datasets((config.get(loader) or {}).get('dataset')):
            parts = ('type', 'data_root', 'ann_file', 'data_prefix', 'split', 'metainfo')
            identity = json.dumps({part: settings.get(part) for part in parts}, default=str)
            if identity in seen:  # the test dataset of most configs is that of validation
                continue
            seen.add(identity)
            data = Data(settings, loader, config, quick)
            try:
                found = list(_jobs(data, report, read, first))
            except Exception as error:  # settings of any form, which mmengine refuses by itself
                level = data.warning if quick else data.error
                report.append(level('the dataset cannot be checked', '', '', first_line(error)))
                continue
            step = max(1, min(100, len(found) // _QUICK_FILES)) if quick else 1
            jobs += found[::step]
            if data.is_counted is None and step > 1:
                data.is_counted = False
            checked.append(data)
    is_whole = _run(jobs, report, progress, workers, deadline)
    for loader, group in groupby(checked, lambda data: data.loader):
        has_errors = any(problem.loader == loader for problem in report.errors)
        report.extend(_missing_classes(list(group), is_whole, has_errors))
    report.sort(key=lambda p: (p.level, p.loader, p.kind, p.file, p.record))
    return report


def _jobs(data: Data, report: Report, read: Callable[[Path], Any], first: First) -> Iterator[Job]:
    """Check what is read as a whole, and yield a job for each image."""
    if not data.is_local:
        print_log(f'{data.loader}: not on a local disk, not checked')
        data.is_counted = False
    elif is_coco(data):
        path = data.path(data.settings['ann_file'])
        if not path.is_file():
            report.append(data.error('the annotation file does not exist; set data_root and ann_file', path))
            return
        try:
            content = read(path)
        except (ValueError, RecursionError, OSError) as error:
            report.append(data.error('the annotation file is not JSON', path, '', first_line(error)))
            return
        report.checked['annotation files'] += 1
        yield from check_coco(data, content, report)
    elif data.base('mmdet.XMLDataset'):
        yield from check_voc(data, report)
    elif data.base('mmseg.BaseSegDataset'):
        yield from check_segmentation(data, report)
    elif data.base('mmpretrain.CustomDataset'):
        yield from check_classification(data, report, first)
    else:
        kind, data.is_counted = data.settings.get('type'), False
        print_log(f'{data.loader}: there are no checks for {getattr(kind, "__name__", kind)}')


def _run(
    jobs: Sequence[Job],
    report: Report,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    deadline: float | None,
) -> bool:
    """Run the jobs until the deadline; return whether all have been run."""

    def run(job: Job) -> list[Problem] | None:
        return None if deadline is not None and time.monotonic() > deadline else list(job())

    done = 0
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for number, future in enumerate(as_completed([pool.submit(run, job) for job in jobs]), 1):
            problems = future.result()
            done += problems is not None
            report.extend(problems or ())
            if progress:
                progress(number, len(jobs))
    report.checked['images'] += done
    return done == len(jobs)


def _missing_classes(group: Sequence[Data], is_whole: bool, has_errors: bool) -> Iterator[Problem]:
    """Yield the classes that no dataset of a dataloader has."""
    counts: Counter[str] = sum((data.counts for data in group), Counter())
    for data in group:
        others = {name for other in group if other is not data for name in other.classes if name not in other.unlisted}
        if unlisted := [name for name in data.unlisted if name not in others]:
            kind = f'classes {listed(unlisted)} are not in the annotation file'
            yield data.error(kind, data.path(data.settings['ann_file']), '', data.unlisted[unlisted[0]])
            return
    data = group[0]
    if data.is_train and all(is_whole if one.is_counted is None else one.is_counted for one in group):
        classes = [name for one in group for name in one.classes]
        found = f'found {dict(counts.most_common(20))}'
        if never := [name for name in dict.fromkeys(classes) if not counts[name]]:
            if len(never) < len(set(classes)):
                yield data.warning('classes that never occur', '', '', f'{listed(never)}; {found}')
            elif not has_errors:  # which say why
                yield data.error('no annotation is of one of the classes', '', '', f'{listed(never)}; {found}')
