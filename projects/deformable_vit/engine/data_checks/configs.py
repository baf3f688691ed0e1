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


def has_key(node: Any, key: str) -> bool:
    """Return whether ``key`` occurs anywhere below ``node``."""
    return any(name.endswith(f'.{key}') for name, _ in walk(node, ''))


def numbers_of_classes(node: Any, key: str) -> Iterator[tuple[str, int]]:
    """Yield key and value of every ``num_classes`` below ``node``."""
    return ((name, n) for name, n in walk(node, key) if name.endswith('.num_classes') and isinstance(n, int))


def listed(names: Sequence[str]) -> str:
    """Return up to 20 names as text."""
    shown = ', '.join(map(repr, names[:20]))
    return f'{shown} and {len(names) - 20} more' if len(names) > 20 else shown or 'none'
