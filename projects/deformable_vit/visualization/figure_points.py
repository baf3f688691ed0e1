"""Views of layers without dense attention: deformable patches of DPT, multi-scale deformable attention."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .drawing import AREA, View, color_bar, heat_map, outline, scatter, star
from .heat import points_map
from .layers import PatchLayer, PointsLayer
from .predictions import COLORS

# x0, y0, x1, y1 in pixels of the image: the network's input with its padding.
Box = tuple[float, float, float, float]


def draw_patch(axes: Axes, layer: PatchLayer, view: View, _box: Box) -> str:
    """Draw the patch of a token."""
    index = layer.query_index(*view.query)
    x0, y0, x1, y1 = layer.boxes[index]
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=COLORS[0], linewidth=2))
    scatter(axes, layer.points[index], s=30, color=COLORS[1], edgecolors='black', linewidths=0.7, zorder=4)
    position = layer.query_position(index)
    star(axes, position)
    return f'Patch of the token at ({position[0]:.1f}, {position[1]:.1f}): {x1 - x0:.1f} x {y1 - y0:.1f} pixels'


def draw_patches(axes: Axes, layer: PatchLayer, _view: View, _box: Box) -> str:
    """Draw all patches."""
    outline(axes, layer.boxes, COLORS[0])
    scatter(axes, layer.points.reshape(-1, 2), s=max(0.5, 3000 / layer.points[..., 0].size), color=COLORS[1], lw=0)
    return f'All {layer.query_grid[1]} x {layer.query_grid[0]} deformable patches and their sampling locations'


def draw_displacement(axes: Axes, layer: PatchLayer, _view: View, _box: Box) -> str:
    """Draw arrows from the centers of the regular patches to those of the deformable patches."""
    centers = np.stack([layer.query_position(i) for i in range(len(layer.boxes))])
    moved = (layer.boxes[:, :2] + layer.boxes[:, 2:]) / 2 - centers
    length = np.hypot(*moved.T)
    axes.quiver(*centers.T, *moved.T, length, angles='xy', scale_units='xy', scale=1, width=0.002)
    color_bar(axes, float(length.max()), 'displacement in pixels')
    return 'From the centers of the regular patches to the centers of the deformable patches'


def draw_points(axes: Axes, layer: PointsLayer, view: View, _box: Box) -> str:
    """Draw the sampling locations of a query over the levels."""
    index = layer.query_index(*view.query)
    heads = list(range(layer.heads)) if view.head is None else [view.head]
    at, weights = layer.locations[index, heads], layer.weights[index, heads]
    for level, (h, w) in enumerate(layer.levels):
        color, relative = COLORS[level % len(COLORS)], weights[:, level].ravel() / weights.max()
        points = at[:, level].reshape(-1, 2)
        scatter(
            axes,
            points,
            s=6 + AREA * relative,
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
    star(axes, position)
    who = f'encoder query of level {layer.level_of(index) + 1}' if layer.is_encoder else f'object query {index + 1}'
    return f'Sampling locations of {who} at ({position[0]:.1f}, {position[1]:.1f}); area: weight, colors: levels'


def draw_weights(axes: Axes, layer: PointsLayer, view: View, box: Box) -> str:
    """Draw where the weight of all queries falls."""
    heads = list(range(layer.heads)) if view.head is None else [view.head]
    heat_map(axes, points_map(layer, heads, box), box, 'weight received, relative to an even distribution')
    who = 'encoder queries' if layer.is_encoder else 'object queries'
    shown = f'all {layer.heads} heads' if view.head is None else f'head {view.head + 1} of {layer.heads}'
    return f'Weight of the sampling locations of all {who}, spread bilinearly; {shown}'
