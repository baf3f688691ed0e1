"""Elements of the figures: the view, circles, cells, heat maps, legends."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from .affine import Array
from .heat import highest
from .layers import AttentionLayer
from .predictions import COLORS

# Those of the page.
GROUP_COLORS = (*COLORS, '#ffffff')
_QUERY = '#ff2d55'
# Area of the largest circle, in square points.
AREA = 150
BORDER = 'at or beyond the border of the feature map'


@dataclass
class View:
    """A view of a layer.

    Attributes:
        query: (x, y) in pixels of the image.
        mode: One of :data:`.modes.MODES`.
        head: Index of a head; None for the mean over heads.
        group: Index of a group; None for all.
        top: Number of sampling locations, the strongest.
    """

    query: tuple[float, float]
    mode: str = 'query'
    head: int | None = None
    group: int | None = None
    top: int = 100


def selected(layer: AttentionLayer, view: View) -> dict[int, list[int]]:
    """Return the heads to average for each group that is shown."""
    per_group = layer.heads // layer.groups
    if view.head is not None:
        return {view.head // per_group: [view.head]}
    groups = range(layer.groups) if view.group is None else [view.group]
    return {g: list(range(g * per_group, (g + 1) * per_group)) for g in groups}


def heads_text(layer: AttentionLayer, view: View) -> str:
    """Return which heads are shown and how they are aggregated."""
    if view.head is not None:
        return f'head {view.head + 1} of {layer.heads}'
    if view.group is not None and layer.groups > 1:
        return f'mean over the heads of group {view.group + 1}'
    return f'mean over {"all heads" if layer.groups == 1 else "the heads of each group"}'


def scatter(axes: Axes, points: Array, **style: Any) -> None:
    """Draw circles at points (..., 2)."""
    axes.scatter(points[..., 0], points[..., 1], **style)


def star(axes: Axes, at: Array) -> None:
    """Mark a query."""
    scatter(axes, at, s=260, marker='*', color=_QUERY, edgecolors='white', linewidths=1, zorder=5)


def fill(axes: Axes, cells: Array, values: Array) -> None:
    """Color cells x0, y0, x1, y1 (n, 4) by their values."""
    corners = cells[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    collection = PolyCollection(list(corners), array=values, cmap='viridis', alpha=0.65, linewidths=0)
    collection.set_clim(0, float(values.max()))
    axes.add_collection(collection)


def outline(axes: Axes, cells: Array, color: str) -> None:
    """Draw the outlines of cells x0, y0, x1, y1 (n, 4)."""
    corners = cells[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    axes.add_collection(PolyCollection(list(corners), facecolors='none', edgecolors=color, linewidths=0.7))


def heat_map(axes: Axes, values: Array, box: tuple[float, float, float, float], label: str) -> None:
    """Draw a map (height, width) over x0, y0, x1, y1 in pixels of the image; NaN is transparent."""
    maximum, (x0, y0, x1, y1) = highest(values), box
    axes.imshow(values, extent=(x0, x1, y1, y0), cmap='viridis', vmin=0, vmax=maximum, alpha=0.65)
    color_bar(axes, maximum, label)


def legend(axes: Axes, groups: Iterable[int] = (), border: bool = False) -> None:
    """Explain the colors of groups, and the white borders of locations at the border of the feature map."""
    style: dict[str, Any] = dict(marker='o', linestyle='none', markersize=6, markeredgewidth=1.2)
    handles = [
        Line2D([], [], markerfacecolor=group_color(g), markeredgecolor='black', label=f'group {g + 1}', **style)
        for g in groups
    ]
    if border:
        handles.append(Line2D([], [], markerfacecolor='#7d8590', markeredgecolor='white', label=BORDER, **style))
    if handles:
        axes.legend(handles=handles, fontsize=7, loc='upper right', facecolor='#b9bfc6').set_zorder(6)


def group_color(group: int) -> str:
    """Return the color of a group."""
    return GROUP_COLORS[group % len(GROUP_COLORS)]


def color_bar(axes: Axes, maximum: float, label: str) -> None:
    """Add a bar of viridis from 0 to a maximum below the image."""
    mappable = ScalarMappable(Normalize(0, maximum), 'viridis')
    bar = axes.figure.colorbar(mappable, ax=axes, orientation='horizontal', fraction=0.035, pad=0.01, aspect=50)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
