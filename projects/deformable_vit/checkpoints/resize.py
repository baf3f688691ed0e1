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
    state_dict: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    num_extra: Mapping[str, int],
    log: bool = True,
) -> dict[str, Tensor]:
    """Return a state dict with its position embeddings and bias tables resized to the shapes of a backbone.

    Args:
        state_dict: A backbone's, in this project's names.
        shapes: The shape of each parameter and buffer of the backbone, by name.
        num_extra: Leading entries without a grid position of each position embedding, by name.
        log: Log what is resized.

    Returns:
        A new dict. Tensors that cannot be resized stay as they are, for the caller to report.
    """
    resized = dict(state_dict)
    for name, value in state_dict.items():
        shape = shapes.get(name)
        if shape is None or tuple(value.shape) == shape or not value.is_floating_point() or not value.numel():
            continue
        if name in num_extra:
            kind, result = 'position embedding', _resize_embedding(value, shape, num_extra[name])
        elif name.endswith(_TABLES):
            kind, result = 'relative position bias', _resize_table(value, shape)
        else:
            continue
        if result is not None:
            resized[name], (h, w), (new_h, new_w) = result
            if log:
                print_log(f'{name}: resized {kind} from {h} x {w} to {new_h} x {new_w}', 'current')
    return resized


# The resized tensor, the (height, width) of its grid before and after; None for a tensor of another model.
_Result = tuple[Tensor, tuple[int, int], tuple[int, int]] | None


def _resize_embedding(embedding: Tensor, shape: tuple[int, ...], extra: int) -> _Result:
    if embedding.ndim != 3 or embedding.shape[1] <= extra:
        return None
    old, new = (math.isqrt(n - extra) for n in (embedding.shape[1], shape[1]))
    if embedding.shape[2] != shape[2] or old**2 != embedding.shape[1] - extra or new**2 != shape[1] - extra:
        return None
    return resize_position_embedding(embedding, (old, old), (new, new), extra), (old, old), (new, new)


def _resize_table(table: Tensor, shape: tuple[int, ...]) -> _Result:
    """Resize bicubically, as the official DAT implementation does."""
    flat = table.ndim == 2
    if flat:
        old, new = (math.isqrt(n) for n in (table.shape[0], shape[0]))
        if table.shape[1] != shape[1] or old**2 != table.shape[0] or new**2 != shape[0]:
            return None
        table, target = table.T.unflatten(1, (old, old)), (new, new)
    elif table.ndim == 3 and table.shape[0] == shape[0]:
        target = (shape[1], shape[2])
    else:
        return None
    resized = F.interpolate(table[None], size=target, mode='bicubic', align_corners=False)[0]
    return resized.flatten(1).T if flat else resized, (table.shape[1], table.shape[2]), target
