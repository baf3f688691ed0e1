"""Window and neighborhood attention against the reference, and the reference against masked dense attention."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from devices import DEVICES, LOWER_PRECISIONS, assert_same_function
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from deformable_vit.ops import neighborhood_attention, reference, window_attention
from deformable_vit.ops.local_attention import Run, neighborhood_runs, window_runs

OPS = {
    'windows': (partial(window_attention, shift=4), partial(reference.window_attention, shift=4)),
    'neighborhoods': (neighborhood_attention, reference.neighborhood_attention),
}
each_op = pytest.mark.parametrize('name', OPS)


def inputs(batch: int, size: tuple[int, int], kernel: int) -> list[Tensor]:
    """2 heads of 4 channels."""
    return [*torch.randn(3, batch, 2, *size, 4), torch.randn(2, 2 * kernel - 1, 2 * kernel - 1)]


def masked_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attend where both masks, ``rows`` (H, H) and ``columns`` (W, W), let a query see a key."""
    last = table.shape[-1] - 1
    y, x = ((torch.arange(n) - torch.arange(n)[:, None] + last // 2).clamp(0, last) for n in q.shape[2:4])
    bias = table[:, y[:, None, :, None], x[None, :, None, :]].flatten(3).flatten(1, 2)  # (heads, H * W, H * W)
    visible = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)
    scores = q.flatten(2, 3) @ k.flatten(2, 3).transpose(2, 3) * q.shape[-1] ** -0.5 + bias
    return (scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v.flatten(2, 3)).view(q.shape)


@each_op
@pytest.mark.parametrize('device', DEVICES)
def test_ops_equal_reference(name: str, device: str) -> None:
    for precision in (torch.float64, *LOWER_PRECISIONS):
        assert_same_function(*OPS[name], inputs(2, (15, 29), 7), precision, device)


@each_op
def test_gradients_are_numerically_right(name: str) -> None:
    args = [t.double().requires_grad_() for t in inputs(1, (4, 5), 5)]
    assert torch.autograd.gradcheck(OPS[name][0], args)


def test_neighborhood_is_shifted_inside_at_a_border() -> None:
    """In a row of five pixels with a kernel of three, the first pixel sees 0 to 2 and the last one 2 to 4."""
    q = torch.zeros(1, 1, 1, 5, 1)
    v = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).view(1, 1, 1, 5, 1)
    out = neighborhood_attention(q, q, v, torch.zeros(1, 5, 5)).flatten()
    torch.testing.assert_close(out, torch.tensor([7.0, 7.0, 14.0, 28.0, 28.0]) / 3)


def test_table_index_is_key_minus_query() -> None:
    """A large bias lets each pixel see its right neighbor only."""
    q, v = torch.zeros(1, 1, 1, 4, 1), torch.arange(4.0).view(1, 1, 1, 4, 1)
    table = torch.zeros(1, 5, 5)
    table[0, 2, 3] = 100
    right = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(neighborhood_attention(q, q, v, table).flatten()[:3], right)
    torch.testing.assert_close(
        window_attention(q, q, v, torch.zeros(1, 7, 7) + 100 * (torch.arange(7) == 4)).flatten()[:3], right
    )


def test_shifted_windows_equal_the_cyclic_shift_of_swin() -> None:
    """Swin rolls the map, masks pairs of different regions, and rolls back."""
    q, k, v, table = inputs(1, (8, 8), 4)
    shift = 2
    rolled = [t.roll((-shift, -shift), (2, 3)) for t in (q, k, v)]
    region = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    same_region = region[:, None] == region
    expected = masked_attention(*rolled, table, same_region, same_region).roll((shift, shift), (2, 3))
    for window_attention_ in (window_attention, reference.window_attention):
        torch.testing.assert_close(window_attention_(q, k, v, table, shift), expected)


def test_neighborhood_attention_equals_masked_attention() -> None:
    q, k, v, table = inputs(1, (5, 9), 3)
    masks = []
    for n in (5, 9):
        first = [min(max(i - 1, 0), n - 3) for i in range(n)]
        masks.append(torch.tensor([[first[i] <= j < first[i] + 3 for j in range(n)] for i in range(n)]))
    expected = masked_attention(q, k, v, table, *masks)
    for neighborhood_attention_ in (neighborhood_attention, reference.neighborhood_attention):
        torch.testing.assert_close(neighborhood_attention_(q, k, v, table), expected)


def test_runs_have_values_by_hand() -> None:
    assert window_runs(14, 7, 0) == (Run(0, 2, 7, 0, 7),)
    assert window_runs(17, 7, 2) == (Run(0, 1, 2, 0, 2), Run(2, 2, 7, 2, 7), Run(16, 1, 1, 16, 1))
    assert window_runs(3, 7, 4) == (Run(0, 1, 3, 0, 3),)
    assert neighborhood_runs(28, 7) == (Run(0, 1, 7, 0, 10), Run(7, 2, 7, 4, 13), Run(21, 1, 7, 18, 10))
    assert neighborhood_runs(5, 7) == (Run(0, 1, 5, 0, 5),)


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
