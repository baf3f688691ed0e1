"""Ops in an exported model: right at other sizes, and computed once where blocks share them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.dynamic_spec import ParamsSpec, ShapeVar, TensorSpec

from deformable_vit.ops import (
    deformable_attention,
    key_grid,
    neighborhood_attention,
    query_coordinates,
    reference,
    sharing,
    window_attention,
)
from deformable_vit.ops.tracing import shared


class Local(nn.Module):
    """Attention of a feature map (B, 2, H, W, 4) to itself."""

    def __init__(self, attention: Callable[..., Tensor], size: int) -> None:
        super().__init__()
        self.attention = attention
        self.table = nn.Parameter(torch.randn(2, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, self.table)


class Deformable(nn.Module):
    """Attention of a feature map (B, 2, H, W, 4) to its pixels at the locations of a grid, in two groups."""

    def __init__(self, attention: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attention = attention
        self.table = nn.Parameter(torch.randn(2, 5, 7))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:4]
        tokens = x.flatten(2, 3)
        keys = key_grid(h, w, 'centers', x).flatten(0, 1).expand(x.shape[0], 2, -1, -1)
        query_y, query_x = (query_coordinates(n, 'centers', x) for n in (h, w))
        return self.attention(tokens, tokens, tokens, self.table, keys + tokens[..., :2] / 9, query_y, query_x)


@pytest.mark.parametrize(
    ('build', 'op', 'expected'),
    [
        (partial(Local, size=13), partial(window_attention, shift=4), partial(reference.window_attention, shift=4)),
        (partial(Local, size=13), neighborhood_attention, reference.neighborhood_attention),
        (Deformable, deformable_attention, reference.deformable_attention),
    ],
    ids=['windows', 'neighborhoods', 'deformable'],
)
def test_an_exported_op_is_right_at_other_sizes(build: Any, op: Any, expected: Any) -> None:
    module, reference_module = build(op), build(expected)
    reference_module.load_state_dict(module.state_dict())
    sizes = [ShapeVar('batch', min=1), 2, ShapeVar('height', min=1), ShapeVar('width', min=1), 4]
    spec = ParamsSpec({'x': TensorSpec(sizes)})
    exported = torch.export.export(module, (torch.randn(1, 2, 9, 9, 4),), dynamic_shapes=spec).module()
    for batch, h, w in ((1, 9, 9), (3, 30, 22), (2, 1, 17), (1, 14, 7), (1, 1, 1)):
        x = torch.randn(batch, 2, h, w, 4)
        with torch.no_grad():
            torch.testing.assert_close(exported(x), reference_module(x), rtol=1e-4, atol=1e-4)


def test_an_export_computes_what_depends_on_sizes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    @shared
    def double(n: int, like: Tensor) -> Tensor:
        calls.append(n)
        return like.new_tensor(2 * n)

    like, whole = torch.zeros(1), torch.zeros(1, dtype=torch.long)
    with sharing():
        assert (double(1, like), double(1, like)) == (2, 2)
    assert calls == [1, 1]  # not while a model runs

    monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True)
    calls.clear()
    with sharing():
        first = double(1, like)
        assert double(1, torch.ones(1)) is first
        assert double(2, like) == 4
        assert double(1, whole).dtype == torch.long
    assert calls == [1, 2, 1]
    with sharing():  # of another model
        assert double(1, like) is not first
