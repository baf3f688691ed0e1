"""Recorded layers as JSON: coordinates are pixels of the image, (x, y), with pixel centers at whole numbers."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .affine import Array
from .layers import AttentionLayer, DeformableLayer, Layer, LocalLayer, PatchLayer, PointsLayer, ReductionLayer


def to_json(size: tuple[int, int], layers: Iterable[Layer], query: tuple[float, float]) -> dict[str, Any]:
    """Return the layers, and their attention for the query nearest to a pixel.

    Args:
        size: (height, width) of the image.
        layers: The layers.
        query: (x, y) in pixels of the image.

    Returns:
        ``image`` with ``width`` and ``height``, and ``layers``, each with ``stage``, ``block``, ``kind``, ``name``,
        ``groups``, ``heads``, ``grid`` (of the keys), ``query`` (of the layer, nearest to the given one), ``reference``
        [key], ``locations`` [group][key] and ``attention`` [head][key]. Keys of windows and neighborhoods are those of
        the query. Groups of ``deformable_detr`` are its heads, and its keys are the points of all levels.
        ``deformable_patch`` has ``boxes`` [patch] and ``points`` [patch][point], and ``spatial_reduction`` ``boxes``
        [key]. ``class_token`` is the attention [head] to a class token.
    """
    height, width = size
    return {'image': {'width': width, 'height': height}, 'layers': [_layer(layer, query) for layer in layers]}


def _layer(layer: Layer, query: tuple[float, float]) -> dict[str, Any]:
    index = layer.query_index(*query)
    out: dict[str, Any] = dict(stage=layer.stage, block=layer.block, kind=layer.kind, name=layer.name)
    if layer.part is not None:
        out['part'] = list(layer.part)
    if isinstance(layer, PatchLayer):
        out |= dict(grid=list(layer.query_grid), boxes=_rounded(layer.boxes), points=_rounded(layer.points))
        return out
    out['query'] = _rounded(layer.query_position(index))
    if isinstance(layer, PointsLayer):
        return out | _points(layer, index)
    assert isinstance(layer, AttentionLayer)
    out |= dict(groups=layer.groups, heads=layer.heads, grid=list(layer.key_grid))
    if isinstance(layer, LocalLayer):
        keys, attention = layer.attention_in_window(index)
        reference = layer.pixel_grid()[keys]
        top, left, bottom, right = layer.window(index)
        out['grid'] = [bottom - top + 1, right - left + 1]
        return out | _keys(reference, reference[None], attention)
    attention = layer.attention(index)[:, 0]
    if layer.extra:
        out['class_token'] = _rounded(attention[:, 0], 7)
        attention = attention[:, layer.extra :]
    if isinstance(layer, DeformableLayer):
        return out | _keys(layer.reference, layer.locations, attention)
    assert isinstance(layer, ReductionLayer)
    return out | _keys(layer.centers, layer.centers[None], attention) | {'boxes': _rounded(layer.cells)}


def _points(layer: PointsLayer, index: int) -> dict[str, Any]:
    heads = layer.heads
    locations, weights = layer.locations[index].reshape(heads, -1, 2), layer.weights[index].reshape(heads, -1)
    out = dict(groups=heads, heads=heads, grid=[list(hw) for hw in layer.levels], object=index)
    out |= _keys(np.repeat(layer.reference[index, None, :2], locations.shape[1], axis=0), locations, weights)
    out['encoder'] = layer.is_encoder
    if layer.boxes is not None and layer.scores is not None and layer.labels is not None:
        out['boxes'] = [_rounded(layer.boxes[index])]
        out |= dict(label=int(layer.labels[index]), score=round(float(layer.scores[index]), 4))
    return out


def _keys(reference: Array, locations: Array, attention: Array) -> dict[str, Any]:
    return dict(reference=_rounded(reference), locations=_rounded(locations), attention=_rounded(attention, 7))


def _rounded(array: Array, digits: int = 3) -> list[Any]:
    """Return nested lists of short numbers."""
    result: list[Any] = np.round(array.astype(np.float64), digits).tolist()
    return result
