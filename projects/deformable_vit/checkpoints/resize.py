"""Resizing of position embeddings and relative position bias tables."""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from ..ops import resize_position_embedding

# Relative position bias tables: (heads, T, T), or (T * T, heads) for windows.
_TABLES = ('.rpe_table', '.rpb', '.relative_position_bias_table')


def resize_to_shapes(
    state_dict: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], num_extra: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return a state dict with its position embeddings and bias tables resized to the shapes of a backbone.

    Args:
        state_dict: A backbone's, in this project's names.
        shapes: The shape of each parameter and buffer of the backbone, by name.
        num_extra: Leading entries without a grid position of each position embedding, by name.

    Returns:
        A new dict. Tensors that cannot be resized stay as they are, for the caller to report.
    """
    resized = dict(state_dict)
    for name, value in state_dict.items():
        shape = shapes.get(name)
        if shape is None or tuple(value.shape) == shape:
            continue
        if name in num_extra:
            resized[name] = _resize_embedding(name, value, shape, num_extra[name])
        elif name.endswith(_TABLES):
            resized[name] = _resize_table(name, value, shape)
    return resized


def _resize_embedding(name: str, embedding: Tensor, shape: tuple[int, ...], extra: int) -> Tensor:
    source, target = (math.isqrt(n - extra) for n in (embedding.shape[1], shape[1]))
    if embedding.shape[2] != shape[2] or source**2 != embedding.shape[1] - extra or target**2 != shape[1] - extra:
        return embedding  # of another model
    print_log(f'{name}: resized position embedding from {source} x {source} to {target} x {target}', 'current')
    return resize_position_embedding(embedding, (source, source), (target, target), extra)


def _resize_table(name: str, table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Resize bicubically, as the official DAT implementation does."""
    flat = table.ndim == 2
    if flat:
        sizes = [math.isqrt(n) for n in (table.shape[0], shape[0])]
        if table.shape[1] != shape[1] or [n**2 for n in sizes] != [table.shape[0], shape[0]]:
            return table  # of another model
        table, target = table.T.unflatten(1, (sizes[0], sizes[0])), (sizes[1], sizes[1])
    elif table.ndim == 3 and table.shape[0] == shape[0]:
        target = (shape[1], shape[2])
    else:
        return table
    height, width = table.shape[1:]
    print_log(f'{name}: resized relative position bias from {height} x {width} to {target[0]} x {target[1]}', 'current')
    resized = F.interpolate(table[None], size=target, mode='bicubic', align_corners=False)[0]
    return resized.flatten(1).T if flat else resized
