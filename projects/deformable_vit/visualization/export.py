"""Recorded layers as JSON: coordinates are pixels of the image, (x, y), with pixel centers at whole numbers."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from .layer_data import AttentionLayer, Layer, PatchLayer, PointsLayer


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
        out |= dict(query=np.round(layer.query_position(index).astype(float), 3).tolist())
        out |= dict(groups=layer.groups, heads=layer.heads)
    if isinstance(layer, PointsLayer):
        out |= dict(grid=[list(hw) for hw in layer.levels], object=index, encoder=layer.is_encoder)
        if layer.labels is not None and layer.scores is not None:
            out |= dict(label=int(layer.labels[index]), score=round(float(layer.scores[index]), 4))
    elif isinstance(layer, AttentionLayer):
        out['grid'] = list(layer.key_grid)
        if layer.spans is not None:
            own = [span[i] for span, i in zip(layer.spans, divmod(index, layer.query_grid[1]), strict=True)]
            out['grid'] = [int(last - first) + 1 for first, last in own]
    digits = dict(attention=7, class_token=7)
    return out | {k: np.round(v.astype(float), digits.get(k, 3)).tolist() for k, v in layer.view(index).items()}
