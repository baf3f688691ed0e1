"""Draw one view of a layer with matplotlib, for PNG and SVG files."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .affine import Array
from .drawing import (
    AREA,
    View,
    color_bar,
    fill,
    group_color,
    heads_text,
    heat_map,
    legend,
    outline,
    scatter,
    selected,
    star,
)
from .figure_points import Box, draw_displacement, draw_patch, draw_patches, draw_points, draw_weights
from .heat import received_map
from .layers import AttentionLayer, DeformableLayer, Layer, LocalLayer, PatchLayer, PointsLayer, ReductionLayer
from .modes import check_mode
from .record import Recording

_DARKEN = 0.35


def draw(recording: Recording, layer: Layer, view: View, title: str = '') -> Figure:
    """Return a figure of a layer over the image, with a caption.

    Raises:
        ValueError: The layer has no such mode, or there is no image.
    """
    if recording.image is None:
        raise ValueError('a figure needs an image; record a path or an array')
    height, width = recording.size
    x0, y0, x1, y1 = recording.bounds
    figure = Figure(figsize=(8, 8 * (y1 - y0) / (x1 - x0) + 0.9), dpi=150, layout='constrained')
    axes = figure.add_subplot(facecolor='#7d8590')  # padding of the network's input is gray
    axes.imshow(recording.image, interpolation='nearest')
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, color='black', alpha=_DARKEN, linewidth=0))
    check_mode(layer, view.mode)
    caption = _DRAWERS[type(layer)][view.mode](axes, layer, view, recording.padded_box)
    if recording.bounds != (-0.5, -0.5, width - 0.5, height - 0.5):
        caption += "; gray: padding of the network's input"
    axes.set(xlim=(x0, x1), ylim=(y1, y0), xticks=[], yticks=[])
    figure.supxlabel(f'{title}\n{caption}'.strip(), fontsize=8, wrap=True, parse_math=False)
    return figure


def _query(axes: Axes, layer: DeformableLayer, view: View, _box: Box) -> str:
    index = layer.query_index(*view.query)
    attention, groups = layer.attention(index)[:, 0], selected(layer, view)
    found = [(g, k, w) for g, heads in groups.items() for k, w in enumerate(attention[heads].mean(0).tolist())]
    found.sort(key=lambda item: item[2])
    top = found[-view.top :]
    group, key = (np.array([item[i] for item in top], dtype=int) for i in (0, 1))
    weight = np.array([item[2] for item in top])
    relative, at = weight / weight.max(), layer.locations[group, key]
    style: dict[str, Any] = dict(c=relative, cmap='viridis', vmin=0, vmax=1)
    if len(groups) > 1:
        style = dict(color=[group_color(g) for g in group])
    lines = np.stack([layer.reference[key], at], axis=1)
    axes.add_collection(LineCollection(list(lines), colors='white', linewidths=0.7, alpha=0.6))
    clamped = layer.border[group, key]
    scatter(
        axes,
        at,
        s=6 + AREA * relative,
        **style,
        alpha=0.8,
        zorder=4,
        edgecolors=np.where(clamped, 'white', 'black').tolist(),
        linewidths=np.where(clamped, 1.4, 0.5),
    )
    if len(groups) == 1:
        color_bar(axes, weight.max(), 'attention')
    legend(axes, groups if len(groups) > 1 else (), border=bool(clamped.any()))
    position = layer.query_position(index)
    star(axes, position)
    share = weight.sum() / sum(item[2] for item in found)
    return (
        f'Attention of the query at ({position[0]:.1f}, {position[1]:.1f}), {heads_text(layer, view)}: the {len(top)} '
        f'strongest of {len(found)} sampling locations, {share:.0%} of the attention; lines from the regular grid'
    )


def _locations(axes: Axes, layer: DeformableLayer, view: View, _box: Box) -> str:
    groups = selected(layer, view)
    size = max(1.0, 4000 / layer.locations.shape[1] / len(groups))
    for g in groups:
        edge = np.where(layer.border[g], 'white', 'black').tolist()
        scatter(axes, layer.locations[g], s=min(size, 30), color=group_color(g), edgecolors=edge, lw=0.3)
    legend(axes, groups, border=any(layer.border[g].any() for g in groups))
    return f'All sampling locations of {len(groups)} of {layer.groups} groups, colored by group'


def _displacement(axes: Axes, layer: DeformableLayer, view: View, _box: Box) -> str:
    g = next(iter(selected(layer, view)))
    offset = layer.offsets[g]
    length = np.hypot(*offset.T)
    axes.quiver(*layer.reference.T, *offset.T, length, angles='xy', scale_units='xy', scale=1, width=0.002)
    color_bar(axes, float(length.max()), 'displacement in pixels')
    return f'Displacement of the sampling locations of group {g + 1} of {layer.groups} from the regular grid'


def _received(axes: Axes, layer: AttentionLayer, view: View, _box: Box) -> str:
    cells = _cells_of(layer)
    (x0, y0), (x1, y1) = cells[0, :2].tolist(), cells[-1, 2:].tolist()
    values = received_map(layer, selected(layer, view))
    heat_map(axes, values, (x0, y0, x1, y1), 'attention received, relative to an even distribution')
    spread = ', mean of the sampling locations around each pixel' if isinstance(layer, DeformableLayer) else ''
    return f'Attention that keys receive, averaged over all queries{spread}, {heads_text(layer, view)}'


def _cells_of(layer: AttentionLayer) -> Array:
    """Return x0, y0, x1, y1 of the keys (keys, 4)."""
    if isinstance(layer, ReductionLayer):
        return layer.cells
    half = np.asarray(layer.to_image.scale) / 2
    centers = layer.pixel_grid()
    return np.concatenate([centers - half, centers + half], axis=1)


def _window(axes: Axes, layer: LocalLayer, view: View, _box: Box) -> str:
    index = layer.query_index(*view.query)
    keys, weights = layer.attention_in_window(index)
    values = weights.mean(0) if view.head is None else weights[view.head]
    cells = _cells_of(layer)[keys]
    fill(axes, cells, values)
    (x0, y0), (x1, y1) = cells[:, :2].min(0), cells[:, 2:].max(0)
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor='white', linewidth=2))
    color_bar(axes, float(values.max()), 'attention')
    position = layer.query_position(index)
    star(axes, position)
    kind = layer.kind.replace('_', ' ')
    return f'Attention of the query at ({position[0]:.1f}, {position[1]:.1f}) in its {kind}, {heads_text(layer, view)}'


def _windows(axes: Axes, layer: LocalLayer, view: View, box: Box) -> str:
    if layer.kind == 'neighborhood':
        _window(axes, layer, View(view.query), box)
        return f'Every query has a neighborhood of its own, {layer.size} x {layer.size} tokens; here that of one query'
    spans = (np.unique(layer.spans(axis), axis=0) for axis in (0, 1))
    (top, bottom), (left, right) = (span.T for span in spans)
    cells, width = _cells_of(layer), layer.query_grid[1]
    first, last = (np.add.outer(y * width, x).ravel() for y, x in ((top, left), (bottom, right)))
    outline(axes, np.concatenate([cells[first, :2], cells[last, 2:]], axis=1), 'white')
    shifted = f', shifted by {layer.shift}' if layer.shift else ''
    return f'All windows of {layer.size} x {layer.size} tokens{shifted}; they are smaller at the border'


def _cells(axes: Axes, layer: ReductionLayer, view: View, _box: Box) -> str:
    index = layer.query_index(*view.query)
    attention = layer.attention(index)[:, 0, layer.extra :]
    values = attention.mean(0) if view.head is None else attention[view.head]
    fill(axes, layer.cells, values)
    color_bar(axes, float(values.max()), 'attention')
    position = layer.query_position(index)
    star(axes, position)
    return (
        f'Attention of the query at ({position[0]:.1f}, {position[1]:.1f}) to '
        f'{layer.key_grid[1]} x {layer.key_grid[0]} reduced keys, {heads_text(layer, view)}'
    )


def _keys(axes: Axes, layer: ReductionLayer, _view: View, _box: Box) -> str:
    outline(axes, layer.cells, 'white')
    return f'The part of the image that each of the {layer.key_grid[1]} x {layer.key_grid[0]} keys stands for'


# A test compares it with the table of modes.
_DRAWERS: dict[type[Layer], dict[str, Callable[[Axes, Any, View, Box], str]]] = {
    DeformableLayer: dict(query=_query, locations=_locations, received=_received, displacement=_displacement),
    LocalLayer: dict(query=_window, locations=_windows, received=_received),
    ReductionLayer: dict(query=_cells, locations=_keys, received=_received),
    PatchLayer: dict(query=draw_patch, locations=draw_patches, displacement=draw_displacement),
    PointsLayer: dict(query=draw_points, received=draw_weights),
}
