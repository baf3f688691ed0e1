"""The products backend of deformable attention beyond what all backends have in common."""

from functools import partial

import pytest
import torch
from devices import CalledOps
from torch import Tensor
from torch._subclasses import FakeTensorMode

from deformable_vit.ops import deformable_attention, key_grid, query_coordinates, reference
from deformable_vit.ops.attention import relative_position_bias
from deformable_vit.ops.products import differentiable_weights, product_attention, product_bias


def inputs(size: tuple[int, int], locations: Tensor, table: tuple[int, int], heads: int = 4) -> list[Tensor]:
    """All arguments of deformable attention in float64, 8 channels a head."""
    b, _, n, _ = locations.shape
    q, (k, v) = torch.randn(b, heads, size[0] * size[1], 8), torch.randn(2, b, heads, n, 8)
    y, x = (query_coordinates(n, 'centers', q) for n in size)
    return [t.double() for t in (q, k, v, torch.randn(heads, *table), locations, y, x)]


@pytest.mark.parametrize('max_scores', [1, 700, 2**24])
def test_outputs_and_gradients_equal_reference_to_1e_12(max_scores: int) -> None:
    """With locations on entries of the table, where the slope jumps, as those of a new model, and outside the table."""
    grid = key_grid(4, 4, 'centers', torch.empty(0)).flatten(0, 1).double()
    outside = torch.rand(2, 2, 16, 2, dtype=torch.float64) * 8 - 4
    for locations in (grid.expand(2, 2, -1, -1), outside):
        args = [t.requires_grad_() for t in inputs((4, 4), locations, (7, 7))]
        cotangent = torch.randn(2, 4, 16, 8, dtype=torch.float64)
        results = []
        for function in (partial(product_attention, max_scores=max_scores), reference.deformable_attention):
            out = function(*args)
            results.append((out, *torch.autograd.grad((out * cotangent).sum(), args)))
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_slopes_at_entries_are_those_to_the_right() -> None:
    index = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.25, 2.0, 3.0], requires_grad=True)
    (slope,) = torch.autograd.grad((differentiable_weights(index, 3) @ torch.tensor([1.0, 3.0, 7.0])).sum(), index)
    assert slope.tolist() == [0, 1, 2, 4, 4, -7, 0]


def fake_call(device: str, backend: str, backward: bool) -> CalledOps:
    """Count the ops of a call whose tensors have no values: what Python reads of them is an error."""
    with FakeTensorMode(), CalledOps() as ops:
        q, table = torch.empty(1, 4, 4225, 8, device=device), torch.empty(4, 9, 9, device=device)
        locations, y = torch.empty(1, 2, 4225, 2, device=device), torch.empty(65, device=device)
        args = [t.requires_grad_(backward) for t in (q, q, q, table, locations, y, y)]
        out = deformable_attention(*args, backend=backend)
        if backward:
            out.sum().backward()
    return ops


def test_it_is_the_default_on_cuda() -> None:
    ops = fake_call('cuda', 'auto', backward=False)
    assert ops.count('clamp_') > 0 == ops.count('grid_sampler')


def test_it_reads_no_value_and_adds_at_no_index() -> None:
    """On a GPU the first would wait for the device, the second use atomics."""
    ops = fake_call('cpu', 'products', backward=True)
    rows = 2**24 // (2 * 65 * 4225)
    assert ops.count('softmax_backward') == 2 * -(-65 // rows)  # two groups in chunks of rows
    assert all(ops.count(op) == 0 for op in ('grid_sampler', 'index', 'gather', 'scatter', 'embedding'))


def test_the_only_group_is_computed_by_rows() -> None:
    """As in stage 1 of DAT-T++ with one image; a row of 4 heads has 4 * 6 * 15 scores."""
    args = inputs((4, 6), torch.rand(1, 1, 15, 2), (5, 5))
    for max_scores, chunks in ((2 * 4 * 6 * 15, 2), (4 * 4 * 6 * 15, 1)):
        with CalledOps() as ops:
            out = product_attention(*args, max_scores=max_scores)
        assert ops.count('clamp_') == 2 * chunks  # weights along both axes
        torch.testing.assert_close(out, reference.deformable_attention(*args), rtol=0, atol=1e-12)


def test_the_gradient_of_the_table_is_deterministic() -> None:
    args = [t.float().requires_grad_() for t in inputs((6, 7), torch.rand(2, 2, 40, 2), (9, 9))]
    run = partial(product_attention, *args, max_scores=500)
    first, second = (torch.autograd.grad(run().square().sum(), args) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_bias_equals_that_of_grid_sample_in_an_exported_graph_of_any_size() -> None:
    class Bias(torch.nn.Module):
        def forward(self, table: Tensor, locations: Tensor, y: Tensor, x: Tensor) -> Tensor:
            return product_bias(table, locations, y, x)

    def arguments(b: int, h: int, w: int, n: int) -> tuple[Tensor, ...]:
        locations = torch.rand(b, 2, n, 2) * 3 - 1.5
        return tuple(inputs((h, w), locations, (5, 7))[3:])

    b, h, w, n = (torch.export.Dim(name, min=1) for name in 'bhwn')
    shapes = {'table': None, 'locations': {0: b, 2: n}, 'y': {0: h}, 'x': {0: w}}
    exported = torch.export.export(Bias(), arguments(2, 3, 4, 5), dynamic_shapes=shapes).module()
    traced = torch.jit.trace(product_bias, arguments(2, 3, 4, 5))
    for sizes in ((2, 3, 4, 5), (3, 6, 2, 7), (1, 1, 5, 9)):
        args = arguments(*sizes)
        want = relative_position_bias(*args)
        for bias in (product_bias, exported, traced):
            torch.testing.assert_close(bias(*args), want, rtol=0, atol=1e-12)
