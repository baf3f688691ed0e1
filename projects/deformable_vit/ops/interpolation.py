"""Linear interpolation between the entries of a table, as a matrix of weights: two non-zeros a row, zero outside."""

import torch
from torch import Tensor


def table_index(displacement: Tensor, size: int) -> Tensor:
    """Map query - key, -2 to 2 from end to end of an axis, to a fractional index into ``size`` table entries."""
    return (displacement / 2 + 1) / 2 * (size - 1)


def interpolation_weights(index: Tensor, size: int, dim: int = -1) -> Tensor:
    """Return the linear interpolation weights of fractional indices into ``size`` entries: (...) -> (..., size).

    The entries are the axis ``dim`` of the result, counted from its end.

    It is not differentiable: autograd would give both one-sided slopes of an index on an entry. See
    :func:`interpolation_slopes` and :func:`.products.differentiable_weights`.
    """
    entry = torch.arange(size, dtype=index.dtype, device=index.device).view(-1, *[1] * (-1 - dim))
    return (index.unsqueeze(dim) - entry).abs_().neg_().add_(1).clamp_(min=0)


def interpolation_slopes(index: Tensor, size: int) -> Tensor:
    """Return the derivatives of :func:`interpolation_weights`; at an entry the right one, as in ``grid_sample``."""
    entry = torch.arange(size, dtype=index.dtype, device=index.device)
    lower = index.floor().unsqueeze(-1)
    return (entry == lower + 1).to(index.dtype) - (entry == lower).to(index.dtype)
