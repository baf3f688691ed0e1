"""Heat maps of the attention that keys receive, the same in the page (``views.js``) and in figures."""

from collections.abc import Mapping, Sequence

import numpy as np

from .affine import Array
from .layers import AttentionLayer, DeformableLayer, PointsLayer

# Columns of the heat map of sampling locations over all levels.
_COLUMNS = 120


def splat(points: Array, amounts: Array, size: tuple[int, int]) -> Array:
    """Spread amounts at points bilinearly over the pixels of a map.

    Args:
        points: (n, 2), (x, y) in pixels of the map; what lies outside is lost.
        amounts: (n,).
        size: (height, width).

    Returns:
        The sums (height, width).
    """
    out = np.zeros(size)
    first = np.floor(points).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            corner = first + np.array([dx, dy])
            x, y = corner.T
            inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
            share = (1 - np.abs(points - corner)).prod(-1)
            np.add.at(out, (y[inside], x[inside]), (amounts * share)[inside])
    return out


def received_map(layer: AttentionLayer, groups: Mapping[int, Sequence[int]]) -> Array:
    """Return the attention that keys receive, averaged over queries and heads, relative to an even distribution.

    For deformable attention it is the mean of the sampling locations around each pixel of the feature map, weighted by
    their bilinear shares, so that many locations do not look like much attention: even attention is 1 wherever there
    are locations. Pixels without any are NaN.

    Args:
        layer: The layer.
        groups: For each group that is shown, its heads.

    Returns:
        (height, width), of the queries' grid for deformable attention, else of the keys' grid.
    """
    received = layer.received()[:, layer.extra :] * layer.k.shape[1]
    by_group = {g: received[list(heads)].mean(0) for g, heads in groups.items()}
    if not isinstance(layer, DeformableLayer):
        return np.mean(list(by_group.values()), axis=0).reshape(layer.key_grid)
    points = np.concatenate([layer.to_image.inverse(layer.locations[g]) for g in by_group])
    amounts = np.concatenate(list(by_group.values()))
    shares = splat(points, np.ones(len(points)), layer.query_grid)
    out: Array = splat(points, amounts, layer.query_grid) / np.where(shares > 0, shares, np.nan)
    return out


def points_map(layer: PointsLayer, heads: Sequence[int], box: tuple[float, float, float, float]) -> Array:
    """Return the weight that falls on each part of a box, over all queries, relative to an even distribution.

    Args:
        layer: The layer.
        heads: The heads to sum over.
        box: x0, y0, x1, y1 in pixels of the image.

    Returns:
        (height, width) of cells that are about square.
    """
    x0, y0, x1, y1 = box
    size = (max(1, int(_COLUMNS * (y1 - y0) / (x1 - x0) + 0.5)), _COLUMNS)
    cells = (layer.locations[:, list(heads)].reshape(-1, 2) - (x0, y0)) / (x1 - x0, y1 - y0) * (size[1], size[0]) - 0.5
    weights = layer.weights[:, list(heads)].ravel().astype(np.float64)
    return splat(cells, weights, size) * (size[0] * size[1]) / weights.sum()


def highest(values: Array) -> float:
    """Return the value that 99.5 % of the values do not exceed, so that single ones do not hide the others."""
    ordered = np.sort(values[np.isfinite(values)])
    if not len(ordered):
        return 1.0
    value = float(ordered[int(0.995 * (len(ordered) - 1))])
    return value if value > 0 else float(ordered[-1]) or 1.0
