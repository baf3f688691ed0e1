"""Draw what one query of a layer uses with matplotlib."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from .affine import Array
from .layer_data import Layer, PatchLayer, PointsLayer
from .page import View
from .recording import Recording

_QUERY, _PATCH, _POINTS = '#ff2d55', '#e69f00', '#56b4e9'


def draw(recording: Recording, view: View, title: str = '') -> Figure:
    """Return a figure of a layer over the image, with a caption.

    Raises:
        ValueError: There is no image.
    """
    layer = recording.layers[view.layer]
    if recording.image is None:
        raise ValueError('a figure needs an image; record a path or an array')
    height, width = recording.size
    figure = Figure(figsize=(8, 8 * height / width + 0.9), dpi=150, layout='constrained')
    axes = figure.add_subplot()
    axes.imshow(recording.image // 3 * 2, interpolation='nearest')  # darker
    caption = _query(axes, layer, view)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    figure.supxlabel(f'{title}\n{caption}'.strip(), fontsize=8, wrap=True, parse_math=False)
    return figure


def layer_title(layer: Layer) -> str:
    """Return the stage and the block of a layer, with the numbers that the tool's options take, and its kind."""
    if layer.stage:
        where = f'stage {layer.stage}, ' + (f'block {layer.block}' if layer.block else 'patch embedding')
    else:
        where = f'{"encoder" if isinstance(layer, PointsLayer) and layer.is_encoder else "decoder"} layer {layer.block}'
    return f'{where} ({layer.kind.replace("_", " ")})'


def _query(axes: Axes, layer: Layer, view: View) -> str:
    index = layer.query_index(*view.query)
    found, position = layer.view(index), layer.query_position(index)
    where = f'({position[0]:.1f}, {position[1]:.1f})'
    axes.scatter(position[0], position[1], s=260, marker='*', color=_QUERY, edgecolors='white', linewidths=1, zorder=5)
    if isinstance(layer, PatchLayer):
        axes.add_collection(PolyCollection(_corners(layer.boxes[[index]]), facecolors='none', edgecolors=_PATCH))
        points = layer.points[index]
        axes.scatter(points[:, 0], points[:, 1], s=30, color=_POINTS, edgecolors='black', linewidths=0.7, zorder=4)
        return f'Patch of the token at {where} and its sampling locations'
    attention, locations = found['attention'], found['locations']
    group_of = np.arange(len(attention)) * len(locations) // len(attention)  # of each head
    shown = np.arange(len(attention)) if view.head is None else np.array([view.head])
    if view.group is not None:
        shown = shown[group_of[shown] == view.group]
    heads = f'head {view.head + 1}' if view.head is not None else 'mean over heads'
    caption = f'Attention of the query at {where}, {heads}{"" if view.group is None else f" of group {view.group + 1}"}'
    if layer.kind not in ('deformable', 'deformable_detr'):
        style: dict[str, Any] = dict(cmap='viridis', alpha=0.65, linewidths=0)
        drawn = PolyCollection(_corners(found['boxes']), array=attention[shown].mean(0), **style)
        axes.add_collection(drawn)
        _color_bar(axes, drawn, 'attention')
        return caption
    groups = np.unique(group_of[shown])
    weights = np.stack([attention[shown[group_of[shown] == g]].mean(0) for g in groups])
    strongest = np.argsort(weights, axis=None)[-view.top :]
    group, key = np.unravel_index(strongest, weights.shape)
    at, weight = locations[groups[group], key], weights.ravel()[strongest]
    lines = np.stack([found['reference'][key], at], axis=1)
    axes.add_collection(LineCollection(list(lines), colors='white', linewidths=0.7, alpha=0.6))
    size = 6 + 150 * weight / weight.max()
    style = dict(cmap='viridis', vmin=0, alpha=0.8, edgecolors='black', linewidths=0.5)
    _color_bar(axes, axes.scatter(at[:, 0], at[:, 1], s=size, c=weight, **style), 'attention')
    share = weight.sum() / weights.sum()
    caption += f': the {len(strongest)} strongest of {weights.size} sampling locations, {share:.0%} of the attention'
    return f'{caption}; lines from the regular grid'


def _corners(boxes: Array) -> list[Array]:
    """Return the corners (4, 2) of boxes x0, y0, x1, y1 (n, 4)."""
    return list(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))


def _color_bar(axes: Axes, drawn: Any, label: str) -> None:
    bar = axes.figure.colorbar(drawn, ax=axes, orientation='horizontal', fraction=0.035, pad=0.01, aspect=50)
    bar.set_label(label, fontsize=8)
