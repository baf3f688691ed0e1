"""Normalized coordinates of the queries and keys of deformable attention: -1 and 1 at the ends of an axis, (y, x).

Coordinates are float32 or float64 whatever the autocast dtype: half-precision offsets lose whole pixels on large
feature maps. There are two conventions, one for each version of the official implementation. In both, sampling takes -1
and 1 for the centers of the first and last pixels.

- ``centers`` (DAT, CVPR 2022): pixel i of n is at (i + 0.5) / n * 2 - 1, for queries and keys.
- ``corners`` (DAT++, 2023): query i of n is at i / (n - 1) * 2 - 1, key i at (i + 0.5) / (n - 1) * 2 - 1. On an axis of
  one pixel, where the official implementation divides by zero, the pixel is at 0.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .tracing import is_tracing, shared, sizes_tensor

CONVENTIONS = ('centers', 'corners')


@shared
def query_coordinates(n: int, convention: str, like: Tensor) -> Tensor:
    """Return the coordinates (n,) of the queries along an axis, on the device of ``like``, in its dtype or float32."""
    return _positions(n, convention, 0.5 if _is_centers(convention) else 0.0, like)


def key_coordinates(n: int, convention: str, like: Tensor) -> Tensor:
    """Return the coordinates (n,) of the keys along an axis without offsets; see :func:`query_coordinates`."""
    return _positions(n, convention, 0.5, like)


@shared
def key_grid(h: int, w: int, convention: str, like: Tensor) -> Tensor:
    """Return the coordinates (h, w, 2) of a grid of keys without offsets, (y, x)."""
    y, x = key_coordinates(h, convention, like), key_coordinates(w, convention, like)
    return torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1)


@shared
def key_spacing(h: int, w: int, convention: str, like: Tensor) -> Tensor:
    """Return half the distance of adjacent keys (2,), (y, x): the unit of a bounded offset."""
    sizes = sizes_tensor((h, w), like.new_empty(0, dtype=coordinate_dtype(like)))
    return 1 / (sizes if _is_centers(convention) else (sizes - 1).clamp(min=1))


def coordinate_dtype(like: Tensor) -> torch.dtype:
    """Return float64 for float64 tensors, else float32."""
    return torch.promote_types(like.dtype, torch.float32)


def autocast_dtype(like: Tensor) -> torch.dtype:
    """Return the dtype that autocast gives a matrix product of ``like``; its own dtype where autocast is disabled."""
    device = like.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype


def without_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Disable autocast where it is enabled on the device of ``like``; otherwise an export holds no trace of it."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _is_centers(convention: str) -> bool:
    if convention not in CONVENTIONS:
        raise ValueError(f'convention must be one of {CONVENTIONS}, got {convention!r}')
    return convention == 'centers'


def _positions(n: int, convention: str, first: float, like: Tensor) -> Tensor:
    i = torch.arange(n, dtype=coordinate_dtype(like), device=like.device) + first
    if _is_centers(convention):
        return i / n * 2 - 1
    if is_tracing():
        size = sizes_tensor((n,), i)
        return (i / (size - 1).clamp(min=1) * 2 - 1) * (size > 1)
    return i / (n - 1) * 2 - 1 if n > 1 else torch.zeros_like(i)
