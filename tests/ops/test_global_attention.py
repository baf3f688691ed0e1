"""Dense and deformable attention against the reference implementation: values, gradients and memory."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from devices import DEVICES, LOWER_PRECISIONS, assert_same_function, within_cells
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from deformable_vit.ops import deformable_attention, dense_attention, key_grid, query_coordinates, reference
from deformable_vit.ops.attention import chunked_attention
from deformable_vit.ops.interpolation import interpolation_slopes, interpolation_weights, table_index
from deformable_vit.ops.products import product_attention
from deformable_vit.ops.separable import separable_attention

small_sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
each_device = pytest.mark.parametrize('device', DEVICES)


def attention_inputs(batch: int = 2, size: tuple[int, int] = (3, 5), keys: int = 6, groups: int = 2) -> list[Tensor]:
    """4 heads of 8 channels, and a table with one entry per distance of queries.

    A key is then at the same fraction of an entry for every query; see ``within_cells``.
    """
    h, w = size
    q, (k, v) = torch.randn(batch, 4, h * w, 8), torch.randn(2, batch, 4, keys, 8)
    index = torch.stack([within_cells(n, (batch, groups, keys)) for n in size], dim=-1)
    locations = (1 + torch.tensor(size) - 2 * index) / torch.tensor(size)
    query_y, query_x = (query_coordinates(n, 'centers', q) for n in size)
    return [q, k, v, torch.randn(4, 2 * h + 1, 2 * w + 1), locations, query_y, query_x]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**16),
    backend=st.sampled_from(['auto', 'chunked', 'products', 'separable']),
    convention=st.sampled_from(['centers', 'corners']),
    size=small_sizes,
    keys=small_sizes,
    heads_and_groups=st.sampled_from([(4, 1), (4, 2), (4, 4), (6, 3)]),
    table=st.tuples(st.integers(1, 13), st.integers(1, 13)),
)
@example(0, 'chunked', 'centers', (1, 1), (1, 1), (4, 2), (1, 1))
@example(0, 'products', 'centers', (1, 1), (1, 1), (4, 2), (1, 1))
@example(0, 'separable', 'centers', (1, 1), (1, 1), (4, 2), (1, 1))
def test_deformable_attention_equals_reference(
    seed: int,
    backend: str,
    convention: str,
    size: tuple[int, int],
    keys: tuple[int, int],
    heads_and_groups: tuple[int, int],
    table: tuple[int, int],
) -> None:
    torch.manual_seed(seed)
    (h, w), n, (heads, groups) = size, keys[0] * keys[1], heads_and_groups
    like = torch.empty(0)
    inputs = [
        torch.randn(2, heads, h * w, 4),
        *torch.randn(2, 2, heads, n, 4),
        torch.randn(heads, *table),
        key_grid(*keys, convention, like).flatten(0, 1) + torch.randn(2, groups, n, 2) * 0.3,
        query_coordinates(h, convention, like),
        query_coordinates(w, convention, like),
    ]
    assert_same_function(partial(deformable_attention, backend=backend), reference.deformable_attention, inputs)


def separable(*args: Tensor, max_scores: int) -> Tensor:
    """The separable backend with chunks of a chosen size."""
    q, k, v, table, locations, query_y, query_x = args
    y = table_index(query_y - locations[..., :1], table.shape[1])
    x = table_index(query_x - locations[..., 1:], table.shape[2])
    return separable_attention(q, k, v, table, y, x, max_scores)[0].to(q.dtype)


IMPLEMENTATIONS = {'chunked': chunked_attention, 'products': product_attention, 'separable': separable}


@each_device
def test_chunks_of_any_size_equal_reference(device: str) -> None:
    for implementation in IMPLEMENTATIONS.values():
        for max_scores in (1, 40, 400):
            function = partial(implementation, max_scores=max_scores)
            assert_same_function(function, reference.deformable_attention, attention_inputs(3), device=device)


@each_device
def test_precisions_are_close_to_reference(device: str) -> None:
    for precision in (torch.float64, *LOWER_PRECISIONS):
        for backend in ('auto', 'chunked', 'products', 'separable'):
            function = partial(deformable_attention, backend=backend)
            exact = (4, 5, 6)
            assert_same_function(function, reference.deformable_attention, attention_inputs(), precision, device, exact)
        assert_same_function(dense_attention, reference.dense_attention, attention_inputs()[:3], precision, device)


def test_backward_runs_within_autocast() -> None:
    """As in a training loop that wraps the whole iteration."""
    args = [t.requires_grad_() for t in attention_inputs()]
    expected = torch.autograd.grad(reference.deformable_attention(*args).sum(), args[:5])
    for backend in IMPLEMENTATIONS:
        with torch.autocast('cpu', torch.bfloat16):
            q, k, v = (t.bfloat16() for t in args[:3])
            out = deformable_attention(q, k, v, *args[3:], backend=backend)
            grads = torch.autograd.grad(out.float().sum(), args[:5])
        for grad, want in zip(grads, expected, strict=True):
            assert (grad - want).norm() < 0.05 * want.norm()


def test_attention_propagates_nan() -> None:
    """Checks of the loss detect it; no op raises before, and other samples are not affected."""
    for backend in IMPLEMENTATIONS:
        for value in (torch.nan, torch.inf):
            args = [t.double() for t in attention_inputs(3)]
            args[4][0, 0, 0] = value
            out, expected = (deformable_attention(*args, backend=name) for name in (backend, 'reference'))
            torch.testing.assert_close(out[1:], expected[1:])
            torch.testing.assert_close(out[0, 2:], expected[0, 2:])  # the group with finite locations
            assert value == torch.inf or out[0, :2].isnan().all()


def test_separable_op_works_with_autograd_and_compile() -> None:
    q, k, v, table, *_ = attention_inputs(2, (3, 4), 5)
    y, x = torch.rand(2, 2, 5, 3) * 4 - 1, torch.rand(2, 2, 5, 4) * 6 - 1
    for args in (
        (q, k, v, table, y, x),
        [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in (q, k, v, table, y, x)],
    ):
        torch.library.opcheck(torch.ops.deformable_vit.separable_attention.default, [t.requires_grad_() for t in args])


def saved_elements(function: Callable[..., Tensor], size: int) -> list[int]:
    """Return the sizes of the tensors kept for backward, for size x size queries and keys."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.itemsize
        return tensor

    args = [t.requires_grad_() for t in attention_inputs(1, (size, size), size**2)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function(*args)
    return list(saved.values())


def test_memory_kept_for_backward_is_linear_in_pixels() -> None:
    for implementation in IMPLEMENTATIONS.values():
        function = partial(implementation, max_scores=4096)
        small, large = saved_elements(function, 12), saved_elements(function, 24)
        assert sum(large) < 5 * sum(small)  # four times the queries and keys
        assert max(large) <= 2 * 4 * 24**2 * 8  # keys and values, and nothing of queries x keys


def test_interpolation_slopes_equal_those_of_grid_sample() -> None:
    """Also where the slope jumps: on entries, and one entry before and after the table."""
    table = torch.randn(5)
    index = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 4.0, 4.5, 5.0], requires_grad=True)
    grid = torch.stack([index / 4 * 2 - 1, torch.zeros(10)], dim=-1)[None, None]
    read = torch.nn.functional.grid_sample(table.view(1, 1, 1, 5), grid, align_corners=True)[0, 0, 0]
    (slope,) = torch.autograd.grad(read.sum(), index)
    torch.testing.assert_close(interpolation_weights(index.detach(), 5) @ table, read)
    torch.testing.assert_close(interpolation_slopes(index.detach(), 5) @ table, slope)


def test_gradients_are_numerically_right() -> None:
    inputs = [t.double().requires_grad_() for t in attention_inputs(1, (2, 3), 3)]
    for backend in ('chunked', 'products', 'separable', 'reference'):
        assert torch.autograd.gradcheck(partial(deformable_attention, backend=backend), inputs, fast_mode=True)
