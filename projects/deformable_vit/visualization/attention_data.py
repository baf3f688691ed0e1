"""Queries and keys that a forward pass used, and the attention of any query computed from them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from ..ops.local_attention import window_runs
from .affine import Array
from .layer_data import Layer, splat

# Elements of the attention matrix that `received` holds at a time.
_CHUNK = 2**23


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
        total, count = np.zeros(self.k.shape[:2], dtype=np.float64), int(np.prod(self.query_grid))
        for queries in np.array_split(np.arange(count), -(-count * total.size // _CHUNK)):
            total += self.attention(queries).sum(1)
        return (total / count).astype(np.float32)

    def received_map(self) -> Array:
        """Return the attention that keys receive, relative to an even distribution, as maps (heads, height, width)."""
        relative = self.received()[:, self.extra :] * self.k.shape[1]
        return relative.reshape(self.heads, *self.key_grid)

    def view(self, index: int) -> dict[str, Array]:
        attention = self.attention(index)[:, 0]
        token = dict(class_token=attention[:, 0]) if self.extra else {}
        return token | dict(attention=attention[:, self.extra :])

    def pixel_grid(self) -> Array:
        """Return (x, y) of the pixels of the queries' feature map (height * width, 2) in pixels of the image."""
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

    modes: ClassVar[tuple[str, ...]] = ('query', 'locations', 'received', 'displacement')
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

    def received_map(self) -> Array:
        """Return the mean attention that the sampling locations around each pixel receive, (heads, height, width).

        It is relative to an even distribution, so that many locations do not look like much attention. Pixels of the
        feature map without locations around them are NaN.
        """
        received, maps = self.received() * self.k.shape[1], []
        for head, values in enumerate(received):
            points = self.to_image.inverse(self.locations[head * self.groups // self.heads])
            shares = splat(points, np.ones(len(points)), self.query_grid)
            maps.append(splat(points, values, self.query_grid) / np.where(shares > 0, shares, np.nan))
        return np.stack(maps)

    def view(self, index: int) -> dict[str, Array]:
        return dict(super().view(index), reference=self.reference, locations=self.locations)


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

    def attention(self, queries: Array | int) -> Array:
        """Return the attention (heads, queries, keys), zero outside the windows."""
        out = np.zeros((self.heads, np.size(queries), self.k.shape[1]), dtype=np.float32)
        for i, index in enumerate(np.ravel(queries)):
            keys, weights = self.attention_in_window(int(index))
            out[:, i, keys] = weights
        return out

    def attention_in_window(self, index: int) -> tuple[Array, Array]:
        """Return the keys of a query and their attention (heads, keys)."""
        y, x = divmod(index, self.query_grid[1])
        keys, weights = self._attention(np.array([y]), np.array([x]))
        inside = keys[:, 0, 0] >= 0
        return keys[inside, 0, 0], weights[inside, :, 0, 0].T

    def view(self, index: int) -> dict[str, Array]:
        keys, weights = self.attention_in_window(index)
        centers = self.pixel_grid()[keys]
        return dict(attention=weights, reference=centers, locations=centers[None])

    def received(self) -> Array:
        total = np.zeros(self.k.shape[:2], dtype=np.float32)
        for keys, weights in zip(*self._attention(*map(np.arange, self.query_grid)), strict=True):
            # Windows share keys; where a window is cut, the weight of key -1 is 0.
            np.add.at(total.T, keys.ravel(), weights.reshape(self.heads, -1).T)
        return total / np.float32(np.prod(self.query_grid))

    def _attention(self, rows: Array, columns: Array) -> tuple[Array, Array]:
        """Return the keys (n, rows, columns) of the queries in rows and columns, and their weights (n, heads, ...).

        A window that is cut has fewer than n keys: the others are -1, with weight 0.
        """
        (top, bottom), (left, right) = self.spans(0)[rows].T, self.spans(1)[columns].T
        q, k = (t.reshape(self.heads, *self.query_grid, -1) for t in (self.q, self.k))
        q, keys, scores = q[:, rows[:, None], columns], [], []
        for i, j in np.ndindex(int((bottom - top).max()) + 1, int((right - left).max()) + 1):
            y, x = np.minimum(top + i, bottom)[:, None], np.minimum(left + j, right)
            inside = (top + i <= bottom)[:, None] & (left + j <= right)
            bias = self.table[:, y - rows[:, None] + self.size - 1, x - columns + self.size - 1]
            scores.append(np.where(inside, np.einsum('hyxd,hyxd->hyx', q, k[:, y, x]) + bias, -np.inf))
            keys.append(np.where(inside, y * self.query_grid[1] + x, -1))
        return np.stack(keys), torch.from_numpy(np.stack(scores)).softmax(0).numpy()


@dataclass(kw_only=True)
class ReductionLayer(AttentionLayer):
    """Spatial-reduction attention of PVT, PVT v2 and DPT.

    Attributes:
        boxes: (keys, 4), x0, y0, x1, y1 of the part of the image that each key stands for, in pixels of the image.
    """

    boxes: Array

    def view(self, index: int) -> dict[str, Array]:
        centers = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        return dict(super().view(index), reference=centers, locations=centers[None], boxes=self.boxes)
