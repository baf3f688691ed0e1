"""Ops while a model is traced: no size becomes a constant, and backends that would make one are refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deformable_vit import ops
from deformable_vit.ops import reference
from deformable_vit.ops.local_attention import traced_neighborhood_attention

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*torch.jit.trace.*:DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:.*torch.jit.trace.*:FutureWarning'),
    pytest.mark.filterwarnings('error::torch.jit.TracerWarning'),
]


def test_neighborhoods_of_equal_tiles_are_those_of_the_reference() -> None:
    for kernel, tile in ((7, 7), (5, 3), (3, 4), (1, 2)):
        table = torch.randn(3, 2 * kernel - 1, 2 * kernel - 1, dtype=torch.float64)
        for n in (1, 2, 3, 6, 7, 8, 12, 13, 14, 20, 27):
            q, k, v = torch.randn(3, 2, 3, n, 9, 4, dtype=torch.float64)
            out = traced_neighborhood_attention(q, k, v, table, tile)
            torch.testing.assert_close(out, reference.neighborhood_attention(q, k, v, table), rtol=0, atol=1e-10)


def _coordinates(x: Tensor, convention: str) -> Tensor:
    h, w = x.shape[-2:]
    y, x_ = (ops.query_coordinates(n, convention, x) for n in (h, w))
    grid, spacing = ops.key_grid(h, w, convention, x), ops.key_spacing(h, w, convention, x)
    return (y[:, None, None] + x_[:, None]) * grid + spacing


def _patches(x: Tensor) -> Tensor:
    boxes = ops.decode_boxes(x[:, :4, ::2, ::2], torch.ones(2, dtype=x.dtype))
    weight = torch.linspace(-1, 1, 3 * 6 * 9, dtype=x.dtype).view(3, 6, 3, 3)
    return ops.deformable_patch_projection(x, boxes, weight, weight[:, 0, 0, 0])


def _resized(x: Tensor) -> Tensor:
    embedding = torch.linspace(-1, 1, 20 * 6, dtype=x.dtype).view(1, 20, 6)
    return ops.resize_position_embedding(embedding, (4, 5), (x.shape[-2], x.shape[-1])) + ops.map_to_tokens(x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'coordinates of DAT': lambda x: _coordinates(x, 'centers'),
    'coordinates of DAT++': lambda x: _coordinates(x, 'corners'),
    'deformable patches': _patches,
    'position embedding': _resized,
    'padding': lambda x: ops.pad_to_multiple(x, 4),
}


def test_a_traced_function_is_right_at_other_sizes() -> None:
    for name, function in FUNCTIONS.items():
        traced = torch.jit.trace(function, torch.randn(1, 6, 4, 5), check_trace=False)
        for size in ((1, 6, 4, 5), (2, 6, 7, 3), (1, 6, 1, 1), (3, 6, 16, 8)):
            x = torch.randn(size)
            torch.testing.assert_close(traced(x), function(x), msg=name)


@pytest.mark.parametrize('backend', ['mmcv', 'chunked', 'separable'])
def test_backends_with_constant_sizes_are_refused(backend: str) -> None:
    q, table, locations = torch.randn(1, 2, 12, 4), torch.randn(2, 5, 5), torch.rand(1, 1, 12, 2)
    axes = torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 4)

    def attend(q: Tensor) -> Tensor:
        return ops.deformable_attention(q, q, q, table, locations, *axes)

    def sample(q: Tensor) -> Tensor:
        return ops.deformable_key_value(q, locations.view(1, 1, 3, 4, 2), torch.ones(3, 2), torch.ones(3))

    function = sample if backend == 'mmcv' else attend
    with (
        ops.use_backend(backend),
        pytest.raises(ValueError, match=f"traced with the backend '{backend}' would be wrong at other sizes; use auto"),
    ):
        torch.jit.trace(function, q, check_trace=False)
