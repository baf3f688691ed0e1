"""Classes of a config against those of the files."""

from collections.abc import Sequence
from typing import Any

from .counts import ClassCounts
from .datasets import Data, check_heads, listed, numbers_of_classes

# So many names are written into the line that a user may copy.
_MOST_NAMES = 100


def check_names(data: Data, file: str, names: Sequence[str], is_evaluated: bool) -> None:
    """Compare the classes of a config with the names of the categories of a file in COCO's format, in their order.

    mmdet takes the categories whose name is a class, and numbers them in the order of the file.
    """
    classes = data.classes
    found = [name for name in names if name in classes]
    missing = [name for name in classes if name not in found]
    if not classes:
        return
    if len(set(found)) < len(found):
        data.error('two categories have one name', file, '', listed(found))
    elif found == list(classes):
        check_heads(data, classes)
    elif not missing:
        kind = f'classes must be in the order of the annotation file, {tuple(found)}'
        data.error(kind, file, '', f'the config has {listed(classes)}, the file has {listed(names)}')
    else:
        # Only the last classes may be missing: mmdet's numbers of the others are right.
        is_right = bool(found) and found == list(classes[: len(found)])
        outputs = max((number for _, number in numbers_of_classes(data.config.get('model'))), default=0)
        fails = is_evaluated and not data.is_part and outputs > len(found)  # at a prediction of a missing class
        level = data.warning if is_right and not fails else data.error
        has = f'the config has {listed(classes)}, the file has {listed(names)}'
        detail = '; '.join(filter(None, (_reason(data.settings.get('metainfo')), has, _line(data, names))))
        level(f'classes {listed(missing)} are not in the annotation file', file, '', detail)


def _reason(metainfo: Any) -> str:
    """Return why mmdet has other classes than the user thinks, or an empty text."""
    if not metainfo:
        return 'without metainfo the classes are those of the type of the dataset'
    if isinstance(name := metainfo.get('classes'), str):
        return f'metainfo.classes is the text {name!r}; a comma makes it a tuple, ({name!r},)'
    if 'classes' not in metainfo:
        return f"metainfo has {', '.join(map(repr, metainfo))}, but 'classes' is what is read"
    return ''


def _line(data: Data, names: Sequence[str]) -> str:
    """Return what to write into the config."""
    shown = str(tuple(names)) if len(names) <= _MOST_NAMES else '(...)'
    return f'set metainfo=dict(classes={shown}) in {data.loader}.dataset, and num_classes={len(names)} in the heads'


def check_counts(group: Sequence[Data]) -> None:
    """Put the counts of a loader's datasets into the report, and find classes that never occur."""
    data, counts = group[0], ClassCounts()
    for part in group:
        counts.add(part.counts)
    data.report.counts[data.loader] = counts
    if not (never := counts.missing()):
        return
    found = sorted(((name, row.images) for name, row in counts.items() if row.images), key=lambda item: -item[1])
    causes = [f'{name!r}: {part.causes[name]}' for name in never[:20] for part in group if name in part.causes]
    detail = '; '.join([f'{listed(never)}; found {dict(found[:20])}', *causes])
    if len(never) < len(counts.classes) or not data.is_train:
        data.warning('classes that never occur', detail=detail)
    elif not any(problem.loader == data.loader for problem in data.report.errors):  # which say why
        data.error('no annotation is of one of the classes', detail=detail)
