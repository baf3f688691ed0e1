"""Check the datasets of a config: annotation files, then images and masks in parallel."""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import first_line
from .channels import check_channels
from .classes import check_counts
from .coco import check_coco, is_coco
from .datasets import LOADERS, Data, Job, leaf_datasets
from .directories import First, check_classification
from .images import check_readers, is_missing
from .masks import check_segmentation
from .old_keys import check_old_keys
from .problem import Problem, Report
from .schedule import check_schedule
from .voc import check_voc

Progress = Callable[[int, int], None]
# The quick form reads of each dataset at least so many images, and no more after so many seconds.
_QUICK_FILES = 64
_QUICK_SECONDS = 10.0


def check(
    config: Config,
    *,
    quick: bool = False,
    loaders: Sequence[str] = LOADERS,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Report:
    """Return the problems of the datasets of a config, errors first, without building the model.

    Args:
        config: Of mmdet, mmseg or mmpretrain, with the command line's options.
        quick: Read every hundredth image for at most 10 s, and only the headers of images.
        progress: Called with the number of files that are done and of all files.
        workers: Threads; by default one per core.
    """
    deadline = time.monotonic() + (_QUICK_SECONDS if quick else math.inf)
    report, first = Report(), First()
    report += check_channels(config)
    report += [*check_old_keys(config, loaders), *check_schedule(config, loaders)]
    jobs: list[Job] = []
    seen: set[str] = set()
    counted: dict[str, list[Data]] = {}
    for loader in loaders:
        leaves = list(leaf_datasets(_dataset(config, loader)))
        for settings in leaves:
            if (identity := repr({**settings, 'pipeline': None})) in seen:  # most configs test on validation data
                continue
            seen.add(identity)
            data = Data(settings, loader, config, report, quick, len(leaves) > 1)
            try:
                found = list(_jobs(data, first))
            except Exception as error:  # settings of any form, which mmengine refuses by itself
                if not (data.is_local and data.base('mmseg.BaseSegDataset') and _has_missing_path(data)):
                    data.warning('the dataset cannot be checked', detail=first_line(error))
                continue
            step = max(1, min(100, len(found) // _QUICK_FILES)) if quick else 1
            jobs += found[::step]
            # An annotation file of COCO is read as a whole.
            data.is_counted &= bool(found) and (step == 1 or is_coco(data))
            counted.setdefault(loader, []).append(data)
    is_whole = _run(jobs, report, progress, workers, deadline)
    for group in counted.values():
        for data in group:
            data.is_counted &= is_whole or is_coco(data)
            for check_all in data.at_end:
                _attempt(check_all, report)
        if all(data.is_counted for data in group):
            check_counts(group)
    report.sort()
    return report


def _has_missing_path(data: Data) -> bool:
    """Report a path of a dataset's settings that does not exist; some types of mmseg only assert that it does."""
    root, file = Path(data.settings.get('data_root') or ''), data.settings.get('ann_file')
    if isinstance(file, str) and file and is_missing(data, root / file, 'annotation file'):
        return True
    prefix = data.settings.get('data_prefix')
    for directory in prefix.values() if isinstance(prefix, dict) else ():
        if isinstance(directory, str) and not (root / directory).is_dir():
            data.error('the directory does not exist; set data_root and data_prefix', root / directory)
            return True
    return False


def _dataset(config: Config, loader: str) -> Any:
    """Return the dataset of a loader; None without one."""
    settings = config.get(loader)
    return settings.get('dataset') if isinstance(settings, dict) else None


def _jobs(data: Data, first: First) -> Iterator[Job]:
    """Check what is read as a whole, and yield a job for each image."""
    checks: dict[str, Callable[[Data], Iterator[Job]]] = {
        'mmdet.XMLDataset': check_voc,
        'mmseg.BaseSegDataset': check_segmentation,
        'mmpretrain.CustomDataset': partial(check_classification, first=first),
    }
    found = check_coco if is_coco(data) else next((checks[name] for name in checks if data.base(name)), None)
    if not data.is_local or found is None:
        kind, root = data.settings.get('type'), data.settings.get('data_root')
        print_log(f'{data.loader}: there are no checks for {getattr(kind, "__name__", kind)} in {root}')
        data.is_counted = False
    elif not check_readers(data):
        return
    elif not (file := data.dataset.ann_file) or (data.base('mmseg.BaseSegDataset') and Path(file).is_dir()):
        yield from found(data)
    elif not is_missing(data, Path(file), 'annotation file'):
        data.report.checked['annotation files'] += 1
        yield from found(data)


def _attempt(job: Job, report: Report) -> None:
    try:
        job()
    except Exception as error:  # files of any content
        report.append(Problem('warning', '', 'a file cannot be checked', detail=first_line(error)))


def _run(jobs: Sequence[Job], report: Report, progress: Progress | None, workers: int | None, deadline: float) -> bool:
    """Run the jobs until the deadline; return whether all have been run."""

    def run(job: Job) -> bool:
        if time.monotonic() > deadline:
            return False
        _attempt(job, report)
        return True

    done = 0
    with warnings.catch_warnings(action='ignore'), ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for number, is_done in enumerate(pool.map(run, jobs), 1):
            done += is_done
            if progress:
                progress(number, len(jobs))
    report.checked['images'] += done
    return done == len(jobs)
