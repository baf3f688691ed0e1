"""The perceptrons: what they compute is held by the backbones' golden figures; here what they keep for backward."""

import pytest
import torch
from torch import Tensor

from deformable_vit.layers.mlp import MLP, ConvMLP, LinearConvMLP, ResidualConvMLP
from deformable_vit.ops import use_path


@pytest.mark.parametrize('kind', [MLP, ConvMLP, LinearConvMLP, ResidualConvMLP])
def test_activated_tokens_are_not_kept(kind: type[MLP]) -> None:
    """A tensor of the hidden size less than the plain way has; the result and the gradients are the same."""
    torch.manual_seed(0)
    mlp, x = kind(8, 32), torch.randn(2, 4 * 6, 8)
    results, kept = [], []
    for path in ('auto', 'reference'):
        storages: dict[int, Tensor] = {}

        def keep(t: Tensor, storages: dict[int, Tensor] = storages) -> Tensor:
            if t.numel() == 2 * 4 * 6 * 32:
                storages[t.untyped_storage().data_ptr()] = t
            return t

        mlp.zero_grad()
        with use_path(path), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            out = mlp(x, (4, 6))
        out.square().sum().backward()
        results.append((out, *(p.grad for p in mlp.parameters())))
        kept.append(len(storages))
    assert kept[0] == kept[1] - 1
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_chance_is_the_same_in_backward() -> None:
    """With a second layer that draws numbers, as an adapter with dropout does."""
    mlp = MLP(8, 32)
    mlp.fc2 = torch.nn.Sequential(mlp.fc2, torch.nn.Dropout(0.5))
    x = torch.randn(2, 24, 8, requires_grad=True)
    torch.manual_seed(0)
    (dropped,) = torch.autograd.grad(mlp(x, (4, 6)).square().sum(), x)
    torch.manual_seed(0)
    with use_path('reference'):
        (expected,) = torch.autograd.grad(mlp(x, (4, 6)).square().sum(), x)
    torch.testing.assert_close(dropped, expected)
