"""Nested dicts and lists, such as configs and checkpoints."""

from collections.abc import Iterator
from typing import Any

from .errors import UserError


def walk(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield a node and everything below it, as pairs of dotted key and value.

    Args:
        node: Any value; dicts, lists and tuples are entered, in depth first order.
        key: The name of the node; entries of lists are numbered, as in ``train_pipeline.0.type``.
    """
    yield key, node
    if isinstance(node, dict):
        for name, value in node.items():
            yield from walk(value, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from walk(value, f'{key}.{index}')


def type_name(kind: Any) -> str:
    """Return the name of a type, which a config gives as a class, a name, or a name with its module or scope."""
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def test_dataset(config: dict[str, Any]) -> dict[str, Any]:
    """Return the test dataset of a config, or the first one in a wrapper such as ``ConcatDataset``.

    Raises:
        UserError: No ``test_dataloader`` has a pipeline that loads images.
    """
    for _, node in walk(config.get('test_dataloader'), ''):
        pipeline = node.get('pipeline') if isinstance(node, dict) else None
        if any(type_name(transform['type']) == 'LoadImageFromFile' for transform in pipeline or ()):
            return node
    raise UserError('the config has no test_dataloader whose pipeline loads images (LoadImageFromFile)')
