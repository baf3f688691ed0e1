"""Window and neighborhood attention against the reference implementation, which golden values hold to the official."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from devices import DEVICES, LOWER_PRECISIONS, CalledOps, assert_same_function
from functorch.compile import make_boxed_func
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from deformable_vit.ops import neighborhood_attention, reference, window_attention
from deformable_vit.ops.local_attention import (
    Run,
    neighborhood_runs,
    surplus_pairs,
    window_runs,
)
from deformable_vit.ops.traced_local_attention import traced_neighborhood_attention, traced_window_attention

OPS = {
    'windows': (partial(window_attention, shift=4), partial(reference.window_attention, shift=4)),
    'neighborhoods': (neighborhood_attention, reference.neighborhood_attention),
}
sizes = st.tuples(st.integers(1, 17), st.integers(1, 17))
seeds = st.integers(0, 2**16)
each_op = pytest.mark.parametrize('name', OPS)


def inputs(batch: int, size: tuple[int, int], kernel: int) -> list[Tensor]:
    """2 heads of 4 channels."""
    return [*torch.randn(3, batch, 2, *size, 4), torch.randn(2, 2 * kernel - 1, 2 * kernel - 1)]


@settings(max_examples=15)
@given(seeds, sizes, st.integers(1, 3), st.integers(2, 9), st.integers(0, 8))
@example(0, (1, 1), 1, 7, 4)
@example(0, (15, 29), 2, 7, 4)
def test_window_attention_equals_reference(
    seed: int, size: tuple[int, int], batch: int, window: int, shift: int
) -> None:
    torch.manual_seed(seed)
    functions = (partial(f, shift=shift % window) for f in (window_attention, reference.window_attention))
    assert_same_function(*functions, inputs(batch, size, window))


@settings(max_examples=15)
@given(seeds, sizes, st.integers(1, 2), st.sampled_from([1, 3, 5, 7, 13]))
@example(0, (3, 20), 2, 7)
@example(0, (22, 9), 1, 13)
def test_neighborhood_attention_equals_reference(seed: int, size: tuple[int, int], batch: int, kernel: int) -> None:
    torch.manual_seed(seed)
    args = inputs(batch, size, kernel)
    assert_same_function(neighborhood_attention, reference.neighborhood_attention, args)


@each_op
@pytest.mark.parametrize('device', DEVICES)
def test_lower_precision_is_close_to_reference(name: str, device: str) -> None:
    for precision in LOWER_PRECISIONS:
        assert_same_function(*OPS[name], inputs(2, (15, 29), 7), precision, device)


@each_op
def test_gradients_are_numerically_right(name: str) -> None:
    args = [t.double().requires_grad_() for t in inputs(1, (4, 5), 5)]
    assert torch.autograd.gradcheck(OPS[name][0], args, fast_mode=True)


@each_op
def test_gradient_of_the_table_is_a_sum(name: str) -> None:
    """Without indices, which CUDA sorts or adds to atomically, thousands for each entry of the table."""
    args = [t.requires_grad_() for t in inputs(2, (15, 29), 7)]
    with CalledOps() as ops:
        torch.autograd.grad(OPS[name][0](*args).sum(), args)
    assert ops.count('softmax_backward') > 0
    assert ops.count('index') == ops.count('scatter') == 0


def test_neighborhood_is_shifted_inside_at_a_border() -> None:
    """In a row of five pixels with a kernel of three, the first pixel sees 0 to 2 and the last one 2 to 4."""
    q = torch.zeros(1, 1, 1, 5, 1)
    v = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).view(1, 1, 1, 5, 1)
    out = neighborhood_attention(q, q, v, torch.zeros(1, 5, 5)).flatten()
    torch.testing.assert_close(out, torch.tensor([7.0, 7.0, 14.0, 28.0, 28.0]) / 3)


def test_equal_tiles_of_traced_models_are_those_of_the_reference() -> None:
    for kernel, tile in ((7, 7), (5, 3), (3, 4), (1, 2), (15, 7)):
        table = torch.randn(3, 2 * kernel - 1, 2 * kernel - 1, dtype=torch.float64)
        for n in (1, 2, 3, 6, 7, 8, 12, 13, 14, 20, 27):
            q, k, v = torch.randn(3, 2, 3, n, 9, 4, dtype=torch.float64)
            out = traced_neighborhood_attention(q, k, v, table, tile)
            torch.testing.assert_close(out, reference.neighborhood_attention(q, k, v, table), rtol=0, atol=1e-10)
    for window, shift in ((7, 0), (7, 4), (2, 1)):
        table = torch.randn(3, 2 * window - 1, 2 * window - 1, dtype=torch.float64)
        for n in (1, 2, 3, 4, 5, 7, 10, 11, 14, 18, 27):
            q, k, v = torch.randn(3, 2, 3, n, 9, 4, dtype=torch.float64)
            out = traced_window_attention(q, k, v, table, shift)
            torch.testing.assert_close(out, reference.window_attention(q, k, v, table, shift), rtol=0, atol=1e-10)


def test_runs_have_values_by_hand() -> None:
    assert window_runs(14, 7, 0) == (Run(0, 2, 7, 0, 7),)
    assert window_runs(17, 7, 2) == (Run(0, 1, 2, 0, 2), Run(2, 2, 7, 2, 7), Run(16, 1, 1, 16, 1))
    assert window_runs(3, 7, 4) == (Run(0, 1, 3, 0, 3),)
    assert neighborhood_runs(28, 7) == (Run(0, 1, 7, 0, 10), Run(7, 2, 7, 4, 13), Run(21, 1, 7, 18, 10))
    assert neighborhood_runs(5, 7) == (Run(0, 1, 5, 0, 5),)
    assert surplus_pairs((28, 5), 7) == (7 * 10 + 14 * 13 + 7 * 10) * 5 * 5 - 28 * 7 * 5 * 5


def test_invalid_shift_and_kernel_are_errors() -> None:
    args = inputs(1, (4, 4), 4)
    with pytest.raises(ValueError, match='shift must be 0 to 3 for windows of 4 x 4, got 4'):
        window_attention(*args, shift=4)
    with pytest.raises(ValueError, match='kernel size of neighborhood attention must be odd, got 4'):
        neighborhood_attention(*args)


def test_tiling_ops_work_with_autograd_and_compile() -> None:
    t = torch.randn(2, 2, 17, 20, 3, requires_grad=True)
    rows, columns = [0, 1, 3, 3, 3, 3, 4, 6], [0, 5, 4, 4]  # a tile of 3, then of 6 that overlap by 2; five of 4
    torch.library.opcheck(torch.ops.deformable_vit.tiles.default, (t, rows, columns))
    tiles = [tile.detach().requires_grad_() for tile in torch.ops.deformable_vit.tiles(t, rows, columns)]
    assert [tuple(tile.shape) for tile in tiles] == [(2 * 5, 2, 12, 3), (2 * 15, 2, 24, 3)]
    torch.library.opcheck(torch.ops.deformable_vit.assemble.default, (tiles, 2, rows, columns))
    # Rows 7, 8 and 11, 12 are in two tiles.
    out = torch.ops.deformable_vit.assemble(tiles, 2, rows, columns)
    twice = torch.tensor([1.0] * 7 + [2, 2, 1, 1, 2, 2] + [1] * 4)
    torch.testing.assert_close(out, t * twice[:, None, None])


@pytest.mark.slow
@each_op
def test_compiled_graph_has_no_unfold(name: str) -> None:
    """Inductor of torch 2.12 generates wrong code for the gradient of nested unfolds."""
    graphs: list[str] = []

    def record(graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> Callable:
        graphs.append(graph.code)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    args = [t.requires_grad_() for t in inputs(1, (30, 31), 7)]
    function, _ = OPS[name]
    compiled = torch.compile(function, backend=aot_autograd(fw_compiler=record), fullgraph=True)
    results = []
    for attention in (function, compiled):
        out = attention(*args)
        results.append((out, *torch.autograd.grad(out.square().sum(), args)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert len(graphs) == 2  # forward and backward
    assert 'aten.bmm' in graphs[0]  # the graph of attention
    assert not any('aten.unfold' in graph for graph in graphs)


@pytest.mark.slow
def test_windows_compile_for_dynamic_sizes() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(window_attention, backend='eager', fullgraph=True, dynamic=True)
    for size in ((14, 21), (15, 29)):
        args = inputs(1, size, 7)
        torch.testing.assert_close(compiled(*args), window_attention(*args))
