"""Arguments of the triton backend, and their comparison with the reference implementation."""

from collections.abc import Callable
from functools import partial

import torch
from devices import assert_same_function
from torch import Tensor

from deformable_vit.ops import deformable_attention, query_coordinates, reference


def inputs(
    size: tuple[int, int],
    keys: int,
    table: tuple[int, int],
    heads: tuple[int, int] = (4, 2),
    batch: int = 1,
    d: int = 16,
) -> list[Tensor]:
    """Return arguments with (heads, groups), and locations on both sides of the borders."""
    locations = torch.rand(batch, heads[1], keys, 2) * 3 - 1.5
    q, (k, v) = torch.randn(batch, heads[0], size[0] * size[1], d), torch.randn(2, batch, heads[0], keys, d)
    y, x = (query_coordinates(n, 'centers', q) for n in size)
    return [q, k, v, torch.randn(heads[0], *table), locations, y, x]


def away_from_entries(args: list[Tensor]) -> list[Tensor]:
    """Move locations at which rounding decides on which side of a table entry a query reads, far outside."""
    table, locations = args[3:5]
    for axis, query in enumerate(args[5:]):
        index = (query - locations[..., axis, None]) * (table.shape[1 + axis] - 1) / 4
        near = (index - index.round()).abs().amin(-1) < 1e-3
        locations[..., axis] = torch.where(near, 9.0, locations[..., axis])
    return args


def assert_equals_reference(args: list[Tensor], precision: torch.dtype, device: str = 'cpu') -> None:
    """Compare outputs and all five gradients; coordinates of queries have none."""
    *args, y, x = args

    def with_coordinates(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *five: function(*five, y.to(five[4]), x.to(five[4]))

    fused = with_coordinates(partial(deformable_attention, backend='triton'))
    assert_same_function(fused, with_coordinates(reference.deformable_attention), args, precision, device, exact=(4,))
