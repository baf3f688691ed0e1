"""Nested dicts and lists, such as configs and checkpoints."""

from collections.abc import Iterator
from typing import Any


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
