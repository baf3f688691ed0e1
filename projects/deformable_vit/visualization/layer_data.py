"""What a forward pass used, layer by layer: the base class, deformable patches, and sampling locations of DETR."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .affine import Affine, Array


@dataclass(kw_only=True)
class Layer:
    """One recorded layer.

    Attributes:
        modes: The views that the page has of it.
        kind: ``deformable``, ``window``, ``shifted_window``, ``neighborhood``, ``spatial_reduction``,
            ``deformable_patch`` or ``deformable_detr``.
        stage: 1 to 4; 0 for layers outside the backbone.
        block: Number of the block in its stage, from 1; 0 for a patch embedding.
        name: Name of the module in the model.
        query_grid: (height, width) of the queries.
        to_image: Maps pixels of the queries' feature map to pixels of the image.
        part: Offset (x, y) in tokens of the previous stage, where a stage runs without its stride; None otherwise.

    Raises:
        ValueError: A number is infinite or not a number.
    """

    modes: ClassVar[tuple[str, ...]] = ('query', 'received')
    kind: str
    stage: int
    block: int
    name: str
    query_grid: tuple[int, int]
    to_image: Affine
    part: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if isinstance(value, np.ndarray) and value.dtype.kind == 'f' and not np.isfinite(value).all():
                raise ValueError(f'layer {self.name} is not finite: {key} has NaN or infinite numbers')

    def view(self, index: int) -> dict[str, Array]:
        """Return what a query uses, with the names of the JSON file: see docs/visualization.md."""
        raise NotImplementedError

    def query_index(self, x: float, y: float) -> int:
        """Return the index, in row-major order, of the query nearest to a pixel of the image."""
        column, row = np.floor(self.to_image.inverse(np.array([x, y])) + 0.5).astype(int)
        h, w = self.query_grid
        return int(min(max(row, 0), h - 1) * w + min(max(column, 0), w - 1))

    def query_position(self, index: int) -> Array:
        """Return (x, y) of a query in pixels of the image."""
        y, x = divmod(index, self.query_grid[1])
        return self.to_image(np.array([x, y], dtype=np.float32))


@dataclass(kw_only=True)
class PatchLayer(Layer):
    """Deformable patch embedding of DPT; ``query_grid`` is the grid of the patches.

    Attributes:
        boxes: (patches, 4), x0, y0, x1, y1 from border to border, in pixels of the image.
        points: (patches, k * k, 2), (x, y) of the sampling locations in pixels of the image, row by row.
        border: (patches,), whether a box is clamped to the border of the feature map.
    """

    modes: ClassVar[tuple[str, ...]] = ('query', 'locations', 'displacement')
    boxes: Array
    points: Array
    border: Array

    def view(self, index: int) -> dict[str, Array]:
        return dict(boxes=self.boxes, points=self.points)


@dataclass(kw_only=True)
class PointsLayer(Layer):
    """Multi-scale deformable attention of Deformable DETR, DINO and Mask2Former.

    Attributes:
        levels: (height, width) of the feature map of each level.
        locations: (queries, heads, levels, points, 2), (x, y) of the sampling locations in pixels of the image.
        weights: (queries, heads, levels, points); those of a head sum to 1.
        reference: (queries, 2), reference points (x, y) in pixels of the image. Of the encoder: the centers of the
            pixels of all levels, level by level.
        is_encoder: Whether the queries are the pixels of the levels; otherwise they are object queries.
        boxes: (queries, 4), x0, y0, x1, y1, the predicted boxes of object queries; None if unknown.
        labels: (queries,), classes of the object queries; None if unknown.
        scores: (queries,); None if unknown.
    """

    levels: tuple[tuple[int, int], ...]
    locations: Array
    weights: Array
    reference: Array
    is_encoder: bool
    boxes: Array | None = None
    labels: Array | None = None
    scores: Array | None = None

    @property
    def heads(self) -> int:
        return int(self.weights.shape[1])

    def query_index(self, x: float, y: float) -> int:
        """Return the most confident object query whose box holds a pixel, else the nearest reference point.

        Of an encoder it is one of the finest level.
        """
        if self.scores is not None and self.boxes is not None:
            x0, y0, x1, y1 = self.boxes.T
            inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
            if inside.any():
                return int(np.where(inside, self.scores, -np.inf).argmax())
        distance = np.square(self.reference - (x, y)).sum(-1)
        if self.is_encoder:
            counts = [h * w for h, w in self.levels]
            distance[np.repeat(counts, counts) < max(counts)] = np.inf
        return int(distance.argmin())

    def query_position(self, index: int) -> Array:
        return np.asarray(self.reference[index], dtype=np.float32)

    def level_starts(self) -> list[int]:
        """Return the first query of each level of the encoder."""
        return [0, *np.cumsum([h * w for h, w in self.levels])[:-1].tolist()]

    def level_of(self, index: int) -> int:
        """Return the level of a query of the encoder."""
        return int(np.searchsorted(np.cumsum([h * w for h, w in self.levels]), index, side='right'))

    def received_map(self, box: tuple[float, float, float, float]) -> Array:
        """Return the weight that falls on each part of a box, x0, y0, x1, y1, relative to an even distribution.

        Returns:
            (heads, height, width) of cells that are about square.
        """
        (x0, y0, x1, y1), width = box, 120
        size = (max(1, round(width * (y1 - y0) / (x1 - x0))), width)
        cells = (self.locations - (x0, y0)) / (x1 - x0, y1 - y0) * (size[1], size[0]) - 0.5
        heads = zip(cells.swapaxes(0, 1), self.weights.swapaxes(0, 1), strict=True)
        maps = [splat(points.reshape(-1, 2), weights.ravel(), size) for points, weights in heads]
        return np.stack(maps) * (size[0] * size[1] / len(self.weights))

    def view(self, index: int) -> dict[str, Array]:
        locations = self.locations[index].reshape(self.heads, -1, 2)
        reference = np.repeat(self.reference[index, None], locations.shape[1], axis=0)
        box = {} if self.boxes is None else dict(boxes=self.boxes[index, None])
        return box | dict(
            reference=reference, locations=locations, attention=self.weights[index].reshape(self.heads, -1)
        )


def splat(points: Array, amounts: Array, size: tuple[int, int]) -> Array:
    """Spread amounts (n,) at points (n, 2), (x, y), bilinearly over a map of a (height, width); return the sums."""
    out, first = np.zeros(size), np.floor(points).astype(int)
    for corner in (first + np.array(step) for step in np.ndindex(2, 2)):
        inside = ((corner >= 0) & (corner < size[::-1])).all(-1)
        share = (1 - np.abs(points - corner)).prod(-1)
        np.add.at(out, (corner[inside, 1], corner[inside, 0]), (amounts * share)[inside])
    return out
