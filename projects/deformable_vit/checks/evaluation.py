"""What mmdet's ``CocoMetric`` and pycocotools need of an annotation file, so that an evaluation does not fail."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import first_line
from .classes import check_names
from .coco_loading import read_json
from .datasets import Data
from .images import is_missing
from .types import bases

FIX = 'check_data.py --fix FILE writes a repaired copy'
# What is an error of an evaluation, and the same one where mmdet reads the file for the dataset.
_READ = {
    'no valid area, which pycocotools needs': 'an annotation has no valid area, which mmdet reads',
    'no "segmentation", which the metric segm needs': 'no "segmentation", which with_mask=True needs',
}


def is_evaluated(data: Data) -> bool:
    """Return whether a ``CocoMetric`` computes results of a dataset with the categories of an annotation file."""
    return any(metric.get('ann_file') for metric in _metrics(data))


def check_evaluation(data: Data, content: dict[str, Any]) -> None:
    """Check the annotation file of each ``CocoMetric``; ``content`` is that of the dataset's own."""
    own = Path(data.dataset.ann_file).resolve()
    for metric in _metrics(data):
        if not (file := metric.get('ann_file')):
            _check_without_file(data)
            continue
        if '://' in file or (metric.get('backend_args') or {}).get('backend', 'local') != 'local':
            continue
        truth = content
        if Path(file).resolve() != own:
            if is_missing(data, Path(file), 'annotation file of the evaluator'):
                continue
            try:
                truth = read_json(Path(file))
            except (ValueError, OSError) as error:
                data.error('the annotation file is not JSON', file, '', first_line(error))
                continue
            if not _fits(data, content, truth, file):
                continue
        _check_annotations(data, truth, file, metric)


def _metrics(data: Data) -> Iterator[dict[str, Any]]:
    """Yield the evaluators that compute results with pycocotools."""
    for evaluator in data.evaluators():
        if 'CocoMetric' in bases(evaluator.get('type'), data.scope) and not evaluator.get('format_only'):
            yield evaluator


def _check_without_file(data: Data) -> None:
    """Find out whether a metric without ``ann_file`` gets the annotations, which it takes from the pipeline."""
    step = data.step('PackDetInputs')
    if step and 'instances' not in step.get('meta_keys', ()):
        fix = f"set ann_file in {data.loader.replace('dataloader', 'evaluator')}, or add 'instances' to meta_keys"
        data.error('CocoMetric has no ann_file, and PackDetInputs does not keep the annotations', detail=fix)


def _fits(data: Data, content: dict[str, Any], truth: Any, file: str) -> bool:
    """Compare the images and the categories of an evaluator's file with those of the dataset."""
    lists = [truth.get(key) or [] if isinstance(truth, dict) else [] for key in ('images', 'categories', 'annotations')]
    if not lists[0] or not all(isinstance(part, list) and all(isinstance(e, dict) for e in part) for part in lists):
        data.error('not in COCO format: a list of dicts is missing or empty', file)
        return False
    known = {str(i.get('id')): Path(str(i.get('file_name'))).name for i in lists[0]}
    images = {str(i.get('id')): str(i.get('file_name')) for i in content['images']}
    missing = [name for key, name in images.items() if key not in known]
    others = [name for key, name in images.items() if key in known and known[key] != Path(name).name]
    own = f'{data.loader}.dataset has {data.dataset.ann_file}'
    if missing:
        detail = f'{len(missing)} of {len(images)}, such as {missing[0]!r}; {own}'
        data.error('the annotation file of the evaluator lacks images', file, '', detail)
    elif others:
        detail = f'{len(others)} of {len(images)}, such as {others[0]!r}; {own}'
        data.warning('the annotation file of the evaluator has other names of images', file, '', detail)
    names = [str(c.get('name')) for c in lists[1]]
    if names != [str(c.get('name')) for c in content['categories']]:
        check_names(data, file, names, True)
    return not missing


def _check_annotations(data: Data, truth: dict[str, Any], file: str, metric: dict[str, Any]) -> None:
    """Check what pycocotools reads of each annotation of the classes."""
    sizes = {i.get('id'): i for i in truth.get('images') or ()}
    names, classes = {c.get('id'): c.get('name') for c in truth.get('categories') or ()}, set(data.classes)
    for key, ids in (('image', sizes.keys()), ('category', names.keys())):
        if len({isinstance(value, str) for value in ids}) > 1:
            data.error(f'some ids of {key} are text and some are numbers, which pycocotools confuses', file)
    kinds = metric.get('metric', 'bbox')
    needs_masks = 'segm' in ([kinds] if isinstance(kinds, str) else kinds)
    reported = {(problem.record, problem.kind) for problem in data.report.errors if problem.file == str(file)}
    names = {key: name for key, name in names.items() if name in classes}
    for annotation in truth.get('annotations') or ():
        record = f'annotation {annotation.get("id")!r}'
        keys = annotation.get('image_id'), annotation.get('category_id')
        if any(isinstance(key, (dict, list)) for key in keys) or keys[0] not in sizes or keys[1] not in names:
            continue
        for level, kind, value in _wrong(annotation, needs_masks):
            if level == 'warning':
                data.warning(kind, file, record, FIX)
            elif (record, _READ.get(kind)) not in reported:
                data.error(kind, file, record, FIX if value is None else repr(value)[:80])


def _wrong(annotation: dict[str, Any], needs_masks: bool) -> Iterator[tuple[str, str, Any]]:
    """Yield level, kind and value of what pycocotools cannot use, or takes for something else."""
    if isinstance(value := annotation.get('id'), (int, float, str)):
        try:
            number = float(value)
        except ValueError:
            yield 'error', 'pycocotools cannot evaluate an id that is text', None
        else:
            if number == 0:
                yield 'warning', 'pycocotools takes the id 0 for "no match"; number annotations from 1', None
    crowd = annotation.get('iscrowd')
    if 'iscrowd' not in annotation:
        yield 'error', "no 'iscrowd', which pycocotools needs", None
    elif not isinstance(crowd, (int, float)) and not isinstance(crowd, str):
        yield 'error', "'iscrowd' is neither 0 nor 1", crowd
    if not isinstance(area := annotation.get('area'), (int, float)):
        yield 'error', 'no valid area, which pycocotools needs', area
    mask = annotation.get('segmentation')
    if needs_masks and not mask:
        yield 'error', 'no "segmentation", which the metric segm needs', None
    elif needs_masks and isinstance(mask, list):
        lengths = [len(polygon) if isinstance(polygon, list) else 0 for polygon in mask]
        if lengths[0] <= 4:  # four numbers would be a box
            yield 'error', 'the first polygon has fewer than three points, which pycocotools cannot evaluate', mask
