"""What a forward pass used, layer by layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .affine import Affine, Array


@dataclass(kw_only=True)
class Layer:
    """One recorded layer.

    Attributes:
        kind: ``deformable``, ``window``, ``shifted_window``, ``neighborhood``, ``spatial_reduction``,
            ``deformable_patch`` or ``deformable_detr``.
        stage: 1 to 4; 0 for layers outside the backbone.
        block: Number of the block in its stage, from 1; 0 for a patch embedding.
        name: Name of the module in the model.
        query_grid: (height, width) of the queries.
        to_image: Maps pixels of the queries' feature map to pixels of the image.
        part: Offset (x, y) in tokens of the previous stage, where a stage runs without its stride; None otherwise.
        heads: Number of heads.
        groups: Number of groups of heads with sampling locations of their own.

    Raises:
        ValueError: A number is infinite or not a number.
    """

    kind: str
    stage: int
    block: int
    name: str
    query_grid: tuple[int, int]
    to_image: Affine
    part: tuple[int, int] | None = None
    heads: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if isinstance(value, np.ndarray) and value.dtype.kind == 'f' and not np.isfinite(value).all():
                raise ValueError(f'layer {self.name} is not finite: {key} has NaN or infinite numbers')

    def view(self, index: int) -> dict[str, Array]:
        """Return what a query uses, with the names of the JSON file: see docs/visualization.md."""
        raise NotImplementedError

    def page_data(self) -> dict[str, Any]:
        """Return what the page needs for the views of all queries; their positions are ``queries``, (n, 2)."""
        raise NotImplementedError

    def query_index(self, x: float, y: float) -> int:
        """Return the index, in row-major order, of the query nearest to a pixel of the image."""
        column, row = np.floor(self.to_image.inverse(np.array([x, y])) + 0.5).astype(int)
        h, w = self.query_grid
        return int(min(max(row, 0), h - 1) * w + min(max(column, 0), w - 1))

    def query_position(self, index: int | Array) -> Array:
        """Return (x, y) of a query, or of several (n, 2), in pixels of the image."""
        y, x = np.divmod(index, self.query_grid[1])
        return self.to_image(np.stack([x, y], axis=-1))

    def _all_positions(self) -> Array:
        return self.query_position(np.arange(np.prod(self.query_grid)))


@dataclass(kw_only=True)
class AttentionLayer(Layer):
    """Attention of a backbone's block.

    The bias of a key for a query is ``table``, read bilinearly at ``table_keys + table_queries``, zero outside.

    Attributes:
        q: (heads, queries, d), scaled by 1 / sqrt(d).
        k: (heads, keys, d).
        key_grid: (height, width) of the keys.
        extra: Leading queries and keys without a position: 1 with a class token.
        reference: (keys, 2), (x, y) of the regular grid in pixels of the image.
        locations: (groups, keys, 2), (x, y) of the sampling locations in pixels of the image, or of the keys.
        boxes: (keys, 4), x0, y0, x1, y1 of the part of the image that each key stands for; None for locations.
        spans: For y and x, the first and last key (n, 2) of each query in its window; None for all keys.
        table: (heads, Ty, Tx), relative position biases; None for none.
        table_keys: (groups, keys, 2), (y, x).
        table_queries: For y and x, the numbers of the rows (height,) and columns (width,) of queries.
    """

    q: Array
    k: Array
    key_grid: tuple[int, int]
    extra: int = 0
    reference: Array
    locations: Array
    boxes: Array | None = None
    spans: tuple[Array, Array] | None = None
    table: Array | None = None
    table_keys: Array | None = None
    table_queries: tuple[Array, Array] | None = None

    @property
    def offsets(self) -> Array:
        """(groups, keys, 2), (x, y) from the regular grid to the sampling locations, in pixels of the image."""
        return self.locations - self.reference

    def attention(self, queries: Array | int) -> Array:
        """Return the attention (heads, queries, keys) of queries given by their index, without ``extra`` ones.

        The keys are ``extra`` first, then row-major.
        """
        index = np.ravel(queries)
        scores = torch.from_numpy(self.q[:, index + self.extra]) @ torch.from_numpy(self.k).transpose(1, 2)
        if self.table is not None and self.table_keys is not None and self.table_queries is not None:
            pairs = zip(self.table_queries, np.divmod(index, self.query_grid[1]), strict=True)
            own = np.stack([numbers[i] for numbers, i in pairs], axis=-1)  # (queries, 2)
            at = own[:, None] + self.table_keys[:, None]  # (groups, queries, keys, 2), (y, x)
            ends = np.maximum(np.array(self.table.shape[1:]) - 1, 1)
            grid = torch.from_numpy((at / ends * 2 - 1)[..., ::-1].astype(np.float32))
            tables = torch.from_numpy(self.table).unflatten(0, (self.groups, -1))
            scores += F.grid_sample(tables, grid, align_corners=True).flatten(0, 1)
        if self.spans is not None:
            outside = torch.ones(scores.shape[1:], dtype=torch.bool)
            for row, i in zip(outside, index, strict=True):
                row[torch.from_numpy(self.keys_of(int(i)))] = False
            scores = scores.masked_fill(outside, -torch.inf)
        return scores.softmax(-1).numpy()

    def keys_of(self, index: int) -> Array:
        """Return the keys (n,) that a query attends to, without ``extra`` ones."""
        if self.spans is None:
            return np.arange(len(self.reference))
        at = divmod(index, self.query_grid[1])
        rows, columns = (np.arange(span[i][0], span[i][1] + 1) for span, i in zip(self.spans, at, strict=True))
        return np.add.outer(rows * self.query_grid[1], columns).ravel()

    def view(self, index: int) -> dict[str, Array]:
        attention, keys = self.attention(index)[:, 0], self.keys_of(index)
        out = dict(class_token=attention[:, 0]) if self.extra else {}
        out |= dict(attention=attention[:, self.extra + keys])
        out |= dict(reference=self.reference[keys], locations=self.locations[:, keys])
        return out if self.boxes is None else out | dict(boxes=self.boxes[keys])

    def page_data(self) -> dict[str, Any]:
        cells = self.boxes is not None
        out: dict[str, Any] = (
            dict(boxes=self.boxes) if cells else dict(reference=self.reference, locations=self.locations)
        )
        out |= dict(q=self.q.astype(np.float16), k=self.k.astype(np.float16), headDim=self.q.shape[-1])
        out |= dict(extra=self.extra, queries=self._all_positions(), width=self.query_grid[1])
        if self.spans is not None:
            out['spans'] = [span.tolist() for span in self.spans]
        if self.table is not None and self.table_queries is not None:
            out |= dict(table=self.table.astype(np.float16), tableSize=self.table.shape[1:], tableKeys=self.table_keys)
            out['tableQueries'] = [numbers.tolist() for numbers in self.table_queries]
        return out


@dataclass(kw_only=True)
class PatchLayer(Layer):
    """Deformable patch embedding of DPT; ``query_grid`` is the grid of the patches.

    Attributes:
        boxes: (patches, 4), x0, y0, x1, y1 from border to border, in pixels of the image.
        points: (patches, k * k, 2), (x, y) of the sampling locations in pixels of the image, row by row.
    """

    boxes: Array
    points: Array

    def view(self, index: int) -> dict[str, Array]:
        return dict(boxes=self.boxes, points=self.points)

    def page_data(self) -> dict[str, Any]:
        return dict(queries=self._all_positions(), boxes=self.boxes, locations=self.points)


@dataclass(kw_only=True)
class PointsLayer(Layer):
    """Multi-scale deformable attention of Deformable DETR, DINO and Mask2Former; each head is a group.

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

    def _viewed(self) -> slice:
        """Return the queries that can be chosen: of an encoder, those of the finest level."""
        if not self.is_encoder:
            return slice(0, len(self.reference))
        counts = [h * w for h, w in self.levels]
        first = sum(counts[: int(np.argmax(counts))])
        return slice(first, first + max(counts))

    def query_index(self, x: float, y: float) -> int:
        """Return the most confident object query whose box holds a pixel, else the nearest reference point."""
        viewed = self._viewed()
        cost = np.square(self.reference[viewed] - (x, y)).sum(-1)
        if self.scores is not None and self.boxes is not None:
            x0, y0, x1, y1 = self.boxes.T
            cost = np.where((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1), -self.scores, cost)
        return viewed.start + int(cost.argmin())

    def query_position(self, index: int | Array) -> Array:
        return np.asarray(self.reference[index], dtype=np.float32)

    def view(self, index: int) -> dict[str, Array]:
        locations = self.locations[index].reshape(self.heads, -1, 2)
        reference = np.repeat(self.reference[index, None], locations.shape[1], axis=0)
        box = {} if self.boxes is None else dict(boxes=self.boxes[index, None])
        attention = self.weights[index].reshape(self.heads, -1)
        return box | dict(reference=reference, locations=locations, attention=attention)

    def page_data(self) -> dict[str, Any]:
        viewed = self._viewed()
        out: dict[str, Any] = dict(queries=self.reference[viewed], locations=self.locations[viewed])
        out |= dict(weights=self.weights[viewed].astype(np.float16), encoder=self.is_encoder)
        if self.boxes is not None and self.scores is not None and self.labels is not None:
            out |= dict(boxes=self.boxes, scores=self.scores.tolist(), labels=self.labels.tolist())
        return out
