"""Where the queries and keys of deformable attention lie: normalised coordinates, -1 and 1 at the ends of an axis.

Every coordinate of this package is float32 or better, whatever autocast says: half-precision offsets lose whole pixels
on large maps. Points are (y, x). Two conventions exist, of the two versions of the authors' code; in both, sampling
takes -1 and 1 for the centres of the first and the last pixel.

``centers`` (DAT, CVPR 2022): pixel i of n lies at (i + 0.5) / n * 2 - 1, for queries and keys.
``corners`` (DAT++, 2023): query i of n lies at i / (n - 1) * 2 - 1, key i at (i + 0.5) / (n - 1) * 2 - 1. On an axis of
one pixel, where that divides by zero, the pixel lies at 0.
"""

import torch
from torch import Tensor

CONVENTIONS = ('centers', 'corners')


def query_coordinates(n: int, convention: str, like: Tensor) -> Tensor:
    """(n,) coordinates of the queries along an axis, on the device of ``like``, in its precision or float32."""
    return _positions(n, convention, 0.5 if _is_centers(convention) else 0.0, like)


def key_coordinates(n: int, convention: str, like: Tensor) -> Tensor:
    """(n,) coordinates of the keys along an axis before their offsets, as :func:`query_coordinates`."""
    return _positions(n, convention, 0.5, like)


def key_grid(h: int, w: int, convention: str, like: Tensor) -> Tensor:
    """(h, w, 2) coordinates (y, x) of a grid of keys before their offsets."""
    y, x = key_coordinates(h, convention, like), key_coordinates(w, convention, like)
    return torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1)


def key_spacing(h: int, w: int, convention: str, like: Tensor) -> Tensor:
    """(2,) half the distance of neighbouring keys, (y, x): the unit of a bounded offset."""
    extents = (h, w) if _is_centers(convention) else (max(h - 1, 1), max(w - 1, 1))
    return 1 / torch.tensor(extents, dtype=coordinate_dtype(like), device=like.device)


def coordinate_dtype(like: Tensor) -> torch.dtype:
    """float32, or float64 for float64 tensors."""
    return torch.promote_types(like.dtype, torch.float32)


def _is_centers(convention: str) -> bool:
    if convention not in CONVENTIONS:
        raise ValueError(f'the convention of coordinates must be one of {CONVENTIONS}, got {convention!r}')
    return convention == 'centers'


def _positions(n: int, convention: str, first: float, like: Tensor) -> Tensor:
    i = torch.arange(n, dtype=coordinate_dtype(like), device=like.device) + first
    if _is_centers(convention):
        return i / n * 2 - 1
    return i / (n - 1) * 2 - 1 if n > 1 else torch.zeros_like(i)
