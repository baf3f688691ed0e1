"""Recorded layers: what a forward pass used, and the attention of any query computed from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..ops.local_attention import window_runs
from .affine import Affine, Array

# Elements of the attention matrix that `received` holds at a time.
_CHUNK = 2**23


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
    """

    kind: str
    stage: int
    block: int
    name: str
    query_grid: tuple[int, int]
    to_image: Affine
    part: tuple[int, int] | None = None

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
class AttentionLayer(Layer):
    """A layer with queries and keys.

    Attributes:
        q: (heads, queries, d), scaled by 1 / sqrt(d).
        k: (heads, keys, d).
        key_grid: (height, width) of the keys.
        groups: Number of groups of heads with sampling locations of their own.
        extra: Leading queries and keys without a position: 1 with a class token.
    """

    q: Array
    k: Array
    key_grid: tuple[int, int]
    groups: int = 1
    extra: int = 0

    @property
    def heads(self) -> int:
        return int(self.q.shape[0])

    def attention(self, queries: Array | int) -> Array:
        """Return the attention (heads, queries, keys) of queries given by their index, without ``extra`` ones.

        The keys are ``extra`` first, then row-major.
        """
        index = torch.as_tensor(np.ravel(queries)) + self.extra
        scores = torch.from_numpy(self.q)[:, index] @ torch.from_numpy(self.k).transpose(1, 2)
        return (scores + self._bias(index - self.extra)).softmax(-1).numpy()

    def _bias(self, index: torch.Tensor) -> torch.Tensor:
        """Return what is added to the scores, broadcastable to (heads, queries, keys)."""
        return torch.zeros(1)

    def received(self) -> Array:
        """Return the attention (heads, keys) that keys receive, averaged over all queries; a head's sum is 1."""
        total = np.zeros(self.k.shape[:2], dtype=np.float64)
        for chunk in self._chunks():
            total += self.attention(chunk).sum(1)
        return (total / np.prod(self.query_grid)).astype(np.float32)

    def _chunks(self) -> Iterator[Array]:
        count = int(np.prod(self.query_grid))
        size = max(1, _CHUNK // (self.heads * self.k.shape[1]))
        for start in range(0, count, size):
            yield np.arange(start, min(start + size, count))

    def pixel_grid(self) -> Array:
        """Return (x, y) in pixels of the image (keys, 2) of a grid of keys that is the grid of the queries."""
        y, x = np.mgrid[: self.query_grid[0], : self.query_grid[1]]
        return self.to_image(np.stack([x, y], axis=-1).reshape(-1, 2))


@dataclass(kw_only=True)
class DeformableLayer(AttentionLayer):
    """Deformable attention of DAT and DAT++.

    Attributes:
        normalized: (groups, keys, 2), (y, x) of the sampling locations; -1 and 1 are the centers of the corner pixels.
        query_y: (height,) normalized coordinates of the query rows.
        query_x: (width,) normalized coordinates of the query columns.
        table: (heads, Ty, Tx), relative position biases; None for none.
        reference: (keys, 2), (x, y) of the regular grid in pixels of the image.
        locations: (groups, keys, 2), (x, y) of the sampling locations in pixels of the image.
        border: (groups, keys), whether a location is at the border of the feature map or outside, where zeros are read.
        convention: ``centers`` or ``corners``; see :mod:`deformable_vit.ops.coordinates`.
        clamped: Whether locations are clamped to the feature map, as where offsets are unbounded.
    """

    normalized: Array
    query_y: Array
    query_x: Array
    table: Array | None
    reference: Array
    locations: Array
    border: Array
    convention: str
    clamped: bool = False

    @property
    def offsets(self) -> Array:
        """(groups, keys, 2), (x, y) from the regular grid to the sampling locations, in pixels of the image."""
        return self.locations - self.reference

    def _bias(self, index: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            return torch.zeros(1)
        y, x = torch.from_numpy(self.query_y), torch.from_numpy(self.query_x)
        width = self.query_grid[1]
        queries = torch.stack([y[index // width], x[index % width]], dim=-1)  # (queries, 2)
        displacement = (queries[:, None] - torch.from_numpy(self.normalized)[:, None]) / 2  # (groups, queries, keys, 2)
        tables = torch.from_numpy(self.table).unflatten(0, (self.groups, -1))
        return F.grid_sample(tables, displacement.flip(-1), align_corners=True).flatten(0, 1)


@dataclass(kw_only=True)
class LocalLayer(AttentionLayer):
    """Attention within windows or neighborhoods; the keys are the pixels of the feature map.

    Attributes:
        table: (heads, 2 M - 1, 2 M - 1), the bias by (key - query) + M - 1 in y and x.
        size: M, the size of the windows or neighborhoods in pixels of the feature map.
        shift: Rows and columns that windows are shifted by.
    """

    table: Array
    size: int
    shift: int = 0

    def spans(self, axis: int) -> Array:
        """Return first and last key (n, 2) of each query along an axis, 0 for y and 1 for x; the last is included."""
        n = self.query_grid[axis]
        if self.kind == 'neighborhood':
            first = (np.arange(n) - self.size // 2).clip(0, max(n - self.size, 0))
            return np.stack([first, np.minimum(first + self.size, n) - 1], axis=-1)
        windows = [
            (run.start + i * run.size, run.start + (i + 1) * run.size - 1)
            for run in window_runs(n, self.size, self.shift)
            for i in range(run.tiles)
        ]
        return np.array([(a, b) for a, b in windows for _ in range(a, b + 1)])

    def window(self, index: int) -> tuple[int, int, int, int]:
        """Return first row, first column, last row and last column of the keys of a query."""
        y, x = divmod(index, self.query_grid[1])
        (top, bottom), (left, right) = self.spans(0)[y], self.spans(1)[x]
        return int(top), int(left), int(bottom), int(right)

    def attention(self, queries: Array | int) -> Array:
        """Return the attention (heads, queries, keys), zero outside the windows."""
        h, w = self.query_grid
        out = np.zeros((self.heads, np.size(queries), h * w), dtype=np.float32)
        for i, index in enumerate(np.ravel(queries)):
            keys, weights = self.attention_in_window(int(index))
            out[:, i, keys] = weights
        return out

    def attention_in_window(self, index: int) -> tuple[Array, Array]:
        """Return the keys of a query and their attention (heads, keys)."""
        w = self.query_grid[1]
        y, x = divmod(index, w)
        top, left, bottom, right = self.window(index)
        rows, columns = np.arange(top, bottom + 1), np.arange(left, right + 1)
        keys = (rows[:, None] * w + columns).ravel()
        bias = self.table[:, rows[:, None] - y + self.size - 1, columns - x + self.size - 1]
        scores = np.einsum('hd,hnd->hn', self.q[:, index], self.k[:, keys]) + bias.reshape(self.heads, -1)
        return keys, torch.from_numpy(scores).softmax(-1).numpy()

    def received(self) -> Array:
        total = self._from_neighborhoods() if self.kind == 'neighborhood' else self._from_windows()
        return total / np.float32(np.prod(self.query_grid))

    def _from_windows(self) -> Array:
        """Sum the attention of all queries, window by window: (heads, keys)."""
        total = np.zeros((self.heads, self.k.shape[1]), dtype=np.float32)
        offset = np.arange(self.size) - np.arange(self.size)[:, None] + self.size - 1  # key - query
        bias = self.table[:, offset[:, None, :, None], offset[None, :, None, :]]
        for top, bottom in np.unique(self.spans(0), axis=0):
            for left, right in np.unique(self.spans(1), axis=0):
                h, w = bottom - top + 1, right - left + 1
                pixels = (np.arange(top, bottom + 1)[:, None] * self.query_grid[1] + np.arange(left, right + 1)).ravel()
                scores = self.q[:, pixels] @ self.k[:, pixels].transpose(0, 2, 1)
                scores += bias[:, :h, :w, :h, :w].reshape(scores.shape)
                total[:, pixels] += torch.from_numpy(scores).softmax(-1).sum(1).numpy()
        return total

    def _from_neighborhoods(self) -> Array:
        """Sum the attention of all queries, for all of them one key of their neighborhoods at a time: (heads, keys)."""
        h, w = self.query_grid
        first_y, first_x = self.spans(0)[:, 0], self.spans(1)[:, 0]
        q, k = (t.reshape(self.heads, h, w, -1) for t in (self.q, self.k))
        keys = [(first_y + i, first_x + j) for i in range(min(self.size, h)) for j in range(min(self.size, w))]
        scores = np.empty((len(keys), self.heads, h, w), dtype=np.float32)
        for score, (y, x) in zip(scores, keys, strict=True):
            dy, dx = y - np.arange(h) + self.size - 1, x - np.arange(w) + self.size - 1
            np.einsum('hyxd,hyxd->hyx', q, k[:, y[:, None], x], out=score)
            score += self.table[:, dy[:, None], dx]
        total = np.zeros((self.heads, h, w), dtype=np.float32)
        for weight, (y, x) in zip(torch.from_numpy(scores).softmax(0).numpy(), keys, strict=True):
            index: Any = (slice(None), y[:, None], x[None])
            np.add.at(total, index, weight)  # neighborhoods at a border share keys
        return total.reshape(self.heads, -1)


@dataclass(kw_only=True)
class ReductionLayer(AttentionLayer):
    """Spatial-reduction attention of PVT, PVT v2 and DPT.

    Attributes:
        cells: (keys, 4), x0, y0, x1, y1 of the part of the image that each key stands for, in pixels of the image.
    """

    cells: Array

    @property
    def centers(self) -> Array:
        """(keys, 2), (x, y) of the centers of the cells in pixels of the image."""
        return (self.cells[:, :2] + self.cells[:, 2:]) / 2


@dataclass(kw_only=True)
class PatchLayer(Layer):
    """Deformable patch embedding of DPT; ``query_grid`` is the grid of the patches.

    Attributes:
        boxes: (patches, 4), x0, y0, x1, y1 from border to border, in pixels of the image.
        points: (patches, k * k, 2), (x, y) of the sampling locations in pixels of the image, row by row.
        border: (patches,), whether a box is clamped to the border of the feature map.
    """

    boxes: Array
    points: Array
    border: Array


@dataclass(kw_only=True)
class PointsLayer(Layer):
    """Multi-scale deformable attention of Deformable DETR, DINO and Mask2Former.

    Attributes:
        levels: (height, width) of the feature map of each level.
        locations: (queries, heads, levels, points, 2), (x, y) of the sampling locations in pixels of the image.
        weights: (queries, heads, levels, points); those of a head sum to 1.
        reference: (queries, 2) or (queries, 4), reference points (x, y) or boxes (x, y, width, height) with their
            center, in pixels of the image. Of the encoder: the centers of the pixels of all levels, level by level.
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
        """Return the query with the reference point nearest to a pixel; of the encoder, one of the finest level."""
        reference = self.reference[..., :2]
        if self.is_encoder:
            first, count = self.level_slices()[int(np.argmax([h * w for h, w in self.levels]))]
            reference = reference[first : first + count]
            return int(first + np.square(reference - (x, y)).sum(-1).argmin())
        if self.scores is not None and self.boxes is not None:
            x0, y0, x1, y1 = self.boxes.T
            inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
            if inside.any():  # the most confident object there
                return int(np.where(inside, self.scores, -np.inf).argmax())
        return int(np.square(reference - (x, y)).sum(-1).argmin())

    def query_position(self, index: int) -> Array:
        return np.asarray(self.reference[index, :2], dtype=np.float32)

    def level_of(self, index: int) -> int:
        """Return the level of a query of the encoder."""
        return int(np.searchsorted(np.cumsum([h * w for h, w in self.levels]), index, side='right'))

    def level_slices(self) -> list[tuple[int, int]]:
        """Return the first query and the number of queries of each level of the encoder."""
        counts = [h * w for h, w in self.levels]
        return [(sum(counts[:i]), n) for i, n in enumerate(counts)]
