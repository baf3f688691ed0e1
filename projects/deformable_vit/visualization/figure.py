"""Draw one view of a layer with matplotlib, for PNG and SVG files."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .affine import Array
from .layers import AttentionLayer, DeformableLayer, Layer, LocalLayer, PatchLayer, PointsLayer, ReductionLayer
from .predictions import COLORS
from .record import Recording

MODES = ('query', 'locations', 'received', 'displacement')
_QUERY = '#ff2d55'
_DARKEN = 0.35
# Areas of the largest circle, in square points.
_AREA = 150


@dataclass
class View:
    """What is drawn.

    Attributes:
        query: (x, y) in pixels of the image.
        mode: One of :data:`MODES`.
        head: Index of a head; None for the mean over heads.
        group: Index of a group; None for all.
        top: Number of sampling locations, the strongest.
    """

    query: tuple[float, float]
    mode: str = 'query'
    head: int | None = None
    group: int | None = None
    top: int = 100


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
    caption = _draw_layer(axes, layer, view)
    if recording.bounds != (-0.5, -0.5, width - 0.5, height - 0.5):
        caption += "; gray: padding of the network's input"
    axes.set(xlim=(x0, x1), ylim=(y1, y0), xticks=[], yticks=[])
    figure.supxlabel(f'{title}\n{caption}'.strip(), fontsize=8, wrap=True)
    return figure


def modes_of(layer: Layer) -> dict[str, Any]:
    """Return for each mode of a layer the function that draws it."""
    drawers: dict[type[Layer], dict[str, Any]] = {
        DeformableLayer: dict(query=_query, locations=_locations, received=_received, displacement=_displacement),
        LocalLayer: dict(query=_window, received=_received),
        ReductionLayer: dict(query=_cells, received=_received),
        PatchLayer: dict(query=_patch, locations=_patches),
        PointsLayer: dict(query=_points),
    }
    return drawers[type(layer)]


def _draw_layer(axes: Axes, layer: Layer, view: View) -> str:
    modes = modes_of(layer)
    if view.mode not in modes:
        raise ValueError(f'{layer.kind} has no mode {view.mode!r}; choose from {", ".join(modes)}')
    caption: str = modes[view.mode](axes, layer, view)
    return caption


def _selected(layer: AttentionLayer, view: View) -> dict[int, list[int]]:
    """Return the heads to average for each group that is shown."""
    per_group = layer.heads // layer.groups
    if view.head is not None:
        return {view.head // per_group: [view.head]}
    groups = range(layer.groups) if view.group is None else [view.group]
    return {g: list(range(g * per_group, (g + 1) * per_group)) for g in groups}


def _heads(layer: AttentionLayer, view: View) -> str:
    if view.head is not None:
        return f'head {view.head + 1} of {layer.heads}'
    return f'mean over {"all heads" if layer.groups == 1 else "the heads of each group"}'


def _scatter(axes: Axes, points: Array, **style: Any) -> None:
    axes.scatter(points[..., 0], points[..., 1], **style)


def _star(axes: Axes, at: Array) -> None:
    _scatter(axes, at, s=260, marker='*', color=_QUERY, edgecolors='white', linewidths=1, zorder=5)


def _query(axes: Axes, layer: DeformableLayer, view: View) -> str:
    index = layer.query_index(*view.query)
    attention, groups = layer.attention(index)[:, 0], _selected(layer, view)
    found = [(g, k, w) for g, heads in groups.items() for k, w in enumerate(attention[heads].mean(0).tolist())]
    found.sort(key=lambda item: item[2])
    top = found[-view.top :]
    group, key = (np.array([item[i] for item in top], dtype=int) for i in (0, 1))
    weight = np.array([item[2] for item in top])
    relative, at = weight / weight.max(), layer.locations[group, key]
    style: dict[str, Any] = dict(c=relative, cmap='viridis', vmin=0, vmax=1)
    if len(groups) > 1:
        style = dict(color=[COLORS[g % len(COLORS)] for g in group])
    lines = np.stack([layer.reference[key], at], axis=1)
    axes.add_collection(LineCollection(list(lines), colors='white', linewidths=0.7, alpha=0.6))
    clamped = layer.border[group, key]
    _scatter(
        axes,
        at,
        s=6 + _AREA * relative,
        **style,
        alpha=0.8,
        zorder=4,
        edgecolors=np.where(clamped, 'white', 'black').tolist(),
        linewidths=np.where(clamped, 1.4, 0.5),
    )
    if len(groups) == 1:
        _color_bar(axes, weight.max(), 'attention')
    position = layer.query_position(index)
    _star(axes, position)
    share = weight.sum() / sum(item[2] for item in found)
    return (
        f'Attention of the query at ({position[0]:.1f}, {position[1]:.1f}), {_heads(layer, view)}: the {len(top)} '
        f'strongest of {len(found)} sampling locations, {share:.0%} of the attention; lines from the regular grid'
    )


def _locations(axes: Axes, layer: DeformableLayer, view: View) -> str:
    groups = _selected(layer, view)
    size = max(1.0, 4000 / layer.locations.shape[1] / len(groups))
    for g in groups:
        edge = np.where(layer.border[g], 'white', 'black').tolist()
        _scatter(axes, layer.locations[g], s=min(size, 30), color=COLORS[g % len(COLORS)], edgecolors=edge, lw=0.3)
    return f'All sampling locations of {len(groups)} of {layer.groups} groups, colored by group'


def _displacement(axes: Axes, layer: DeformableLayer, view: View) -> str:
    g = next(iter(_selected(layer, view)))
    offset = layer.offsets[g]
    length = np.hypot(*offset.T)
    axes.quiver(*layer.reference.T, *offset.T, length, angles='xy', scale_units='xy', scale=1, width=0.002)
    _color_bar(axes, float(length.max()), 'displacement in pixels')
    return f'Displacement of the sampling locations of group {g + 1} of {layer.groups} from the regular grid'


def _received(axes: Axes, layer: AttentionLayer, view: View) -> str:
    received, groups = layer.received()[:, layer.extra :] * layer.k.shape[1], _selected(layer, view)
    mean = [received[heads].mean(0) for heads in groups.values()]
    if isinstance(layer, DeformableLayer):
        at, values = np.concatenate([layer.locations[g] for g in groups]), np.concatenate(mean)
        order = np.argsort(values)
        _scatter(axes, at[order], c=values[order], s=max(4, 12000 / len(values)), cmap='viridis', alpha=0.75, lw=0)
    else:
        values = np.mean(mean, axis=0)
        _fill(axes, _cells_of(layer), values)
    _color_bar(axes, float(values.max()), 'attention received, relative to an even distribution')
    return f'Attention that keys receive, averaged over all queries, {_heads(layer, view)}'


def _cells_of(layer: AttentionLayer) -> Array:
    """Return x0, y0, x1, y1 of the keys (keys, 4)."""
    if isinstance(layer, ReductionLayer):
        return layer.cells
    half = np.asarray(layer.to_image.scale) / 2
    centers = layer.pixel_grid()
    return np.concatenate([centers - half, centers + half], axis=1)


def _fill(axes: Axes, cells: Array, values: Array) -> None:
    corners = cells[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    collection = PolyCollection(list(corners), array=values, cmap='viridis', alpha=0.65, linewidths=0)
    collection.set_clim(0, float(values.max()))
    axes.add_collection(collection)


def _window(axes: Axes, layer: LocalLayer, view: View) -> str:
    index = layer.query_index(*view.query)
    keys, weights = layer.attention_in_window(index)
    values = weights.mean(0) if view.head is None else weights[view.head]
    cells = _cells_of(layer)[keys]
    _fill(axes, cells, values)
    (x0, y0), (x1, y1) = cells[:, :2].min(0), cells[:, 2:].max(0)
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor='white', linewidth=2))
    _color_bar(axes, float(values.max()), 'attention')
    position = layer.query_position(index)
    _star(axes, position)
    kind = layer.kind.replace('_', ' ')
    return f'Attention of the query at ({position[0]:.1f}, {position[1]:.1f}) in its {kind}, {_heads(layer, view)}'


def _cells(axes: Axes, layer: ReductionLayer, view: View) -> str:
    index = layer.query_index(*view.query)
    attention = layer.attention(index)[:, 0, layer.extra :]
    values = attention.mean(0) if view.head is None else attention[view.head]
    _fill(axes, layer.cells, values)
    _color_bar(axes, float(values.max()), 'attention')
    position = layer.query_position(index)
    _star(axes, position)
    return (
        f'Attention of the query at ({position[0]:.1f}, {position[1]:.1f}) to '
        f'{layer.key_grid[1]} x {layer.key_grid[0]} reduced keys, {_heads(layer, view)}'
    )


def _patch(axes: Axes, layer: PatchLayer, view: View) -> str:
    index = layer.query_index(*view.query)
    x0, y0, x1, y1 = layer.boxes[index]
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=COLORS[0], linewidth=2))
    _scatter(axes, layer.points[index], s=30, color=COLORS[1], edgecolors='black', linewidths=0.7, zorder=4)
    position = layer.query_position(index)
    _star(axes, position)
    return f'Patch of the token at ({position[0]:.1f}, {position[1]:.1f}): {x1 - x0:.1f} x {y1 - y0:.1f} pixels'


def _patches(axes: Axes, layer: PatchLayer, view: View) -> str:
    corners = layer.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    axes.add_collection(PolyCollection(list(corners), facecolors='none', edgecolors=COLORS[0], linewidths=0.7))
    _scatter(axes, layer.points.reshape(-1, 2), s=max(0.5, 3000 / layer.points[..., 0].size), color=COLORS[1], lw=0)
    return f'All {layer.query_grid[1]} x {layer.query_grid[0]} deformable patches and their sampling locations'


def _points(axes: Axes, layer: PointsLayer, view: View) -> str:
    index = layer.query_index(*view.query)
    heads = list(range(layer.heads)) if view.head is None else [view.head]
    at, weights = layer.locations[index, heads], layer.weights[index, heads]
    for level, (h, w) in enumerate(layer.levels):
        color, relative = COLORS[level % len(COLORS)], weights[:, level].ravel() / weights.max()
        points = at[:, level].reshape(-1, 2)
        _scatter(
            axes,
            points,
            s=6 + _AREA * relative,
            color=color,
            edgecolors='black',
            linewidths=0.5,
            alpha=0.8,
            zorder=4,
            label=f'level {level + 1}: {w} x {h}',
        )
    axes.legend(fontsize=7, loc='upper right')
    if layer.boxes is not None:
        x0, y0, x1, y1 = layer.boxes[index]
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor='white', linewidth=2))
    position = layer.query_position(index)
    _star(axes, position)
    who = 'encoder query' if layer.is_encoder else f'object query {index + 1}'
    return f'Sampling points of {who} at ({position[0]:.1f}, {position[1]:.1f}); area: weight, colors: levels'


def _color_bar(axes: Axes, maximum: float, label: str) -> None:
    mappable = ScalarMappable(Normalize(0, maximum), 'viridis')
    bar = axes.figure.colorbar(mappable, ax=axes, orientation='horizontal', fraction=0.035, pad=0.01, aspect=50)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
