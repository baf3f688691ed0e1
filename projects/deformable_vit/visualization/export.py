"""Recorded layers as JSON: coordinates are pixels of the image, (x, y), with pixel centers at whole numbers."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .attention_data import AttentionLayer, LocalLayer
from .layer_data import Layer, PatchLayer, PointsLayer


def to_json(size: tuple[int, int], layers: Iterable[Layer], query: tuple[float, float]) -> dict[str, Any]:
    """Return the layers, and their attention for the query nearest to a pixel; docs/visualization.md has the keys.

    Args:
        size: (height, width) of the image.
        layers: The layers.
        query: (x, y) in pixels of the image.
    """
    return dict(image=dict(width=size[1], height=size[0]), layers=[_layer(layer, query) for layer in layers])


def _layer(layer: Layer, query: tuple[float, float]) -> dict[str, Any]:
    index = layer.query_index(*query)
    out: dict[str, Any] = dict(stage=layer.stage, block=layer.block, kind=layer.kind, name=layer.name)
    if layer.part is not None:
        out['part'] = list(layer.part)
    if isinstance(layer, PatchLayer):
        out['grid'] = list(layer.query_grid)
    else:
        out['query'] = np.round(layer.query_position(index).astype(float), 3).tolist()
    if isinstance(layer, PointsLayer):
        out |= dict(groups=layer.heads, heads=layer.heads, grid=[list(hw) for hw in layer.levels], object=index)
        out['encoder'] = layer.is_encoder
        if layer.labels is not None and layer.scores is not None:
            out |= dict(label=int(layer.labels[index]), score=round(float(layer.scores[index]), 4))
    elif isinstance(layer, AttentionLayer):
        out |= dict(groups=layer.groups, heads=layer.heads, grid=list(layer.key_grid))
        if isinstance(layer, LocalLayer):
            spans = [layer.spans(axis)[i] for axis, i in enumerate(divmod(index, layer.query_grid[1]))]
            out['grid'] = [int(last - first) + 1 for first, last in spans]
    digits = dict(attention=7, class_token=7)
    return out | {k: np.round(v.astype(float), digits.get(k, 3)).tolist() for k, v in layer.view(index).items()}
