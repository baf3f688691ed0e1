"""What a config says about its datasets."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..._nested import walk


def leaf_datasets(node: Any) -> Iterator[dict[str, Any]]:
    """Yield a dataset, or those within a wrapper such as ``RepeatDataset`` or ``ConcatDataset``."""
    if isinstance(node, Sequence):
        for item in node:
            yield from leaf_datasets(item)
    elif isinstance(node, dict):
        inner = node.get('dataset', node.get('datasets'))
        yield from [node] if inner is None else leaf_datasets(inner)


def is_local(dataset: dict[str, Any]) -> bool:
    """Return whether the files of a dataset are on a disk."""
    return not dataset.get('backend_args') and '://' not in str(dataset.get('data_root'))


def joined(dataset: dict[str, Any], name: str) -> Path:
    """Return the path of a file or directory of a dataset."""
    return Path(dataset.get('data_root') or '', name)


def trains_masks(model: Any) -> bool:
    """Return whether a detector of mmdet trains on masks: that of Mask R-CNN and its like, or Mask2Former."""
    # A config removes a head of its base with None.
    return any(name.endswith(('.mask_head', '.panoptic_head')) and head is not None for name, head in walk(model, ''))


def numbers_of_classes(node: Any, key: str) -> Iterator[tuple[str, int]]:
    """Yield key and value of every ``num_classes`` below ``node``.

    In mmdet's Mask2Former for instance segmentation it is ``num_things_classes``.
    """
    for name, part in walk(node, key):
        if isinstance(part, dict):
            # mmdet's default is 53, for panoptic segmentation
            is_panoptic = part.get('num_stuff_classes') != 0
            keys = ('num_classes',) if is_panoptic else ('num_classes', 'num_things_classes')
            yield from ((f'{name}.{k}', part[k]) for k in keys if isinstance(part.get(k), int))


def wrong_heads(model: Any, classes: int) -> Iterator[tuple[str, str, str]]:
    """Yield the settings of a model that do not fit a number of classes: key, value, and what to set it to.

    Mask2Former also has a class weight for each class and a last one for "no object".
    """
    for key, number in numbers_of_classes(model, 'model'):
        if number != classes:
            yield key, str(number), str(classes)
    for key, node in walk(model, 'model'):
        if not isinstance(node, dict) or 'num_queries' not in node or node.get('num_stuff_classes'):
            continue
        weights = (node.get('loss_cls') or {}).get('class_weight')
        if isinstance(weights, (list, tuple)) and len(weights) != classes + 1:
            first, last = (weights[0], weights[-1]) if weights else (1.0, 0.1)
            expected = [*[first] * classes, last]
            yield f'{key}.loss_cls.class_weight', f'a list of {len(weights)}', str(expected).replace(' ', '')


def listed(names: Sequence[str]) -> str:
    """Return up to 20 names as text."""
    shown = ', '.join(map(repr, names[:20]))
    return f'{shown} and {len(names) - 20} more' if len(names) > 20 else shown or 'none'
