"""What MLPs keep for backward. Their values are compared by the reference values of the backbones."""

import pytest
import torch
from torch import Tensor, nn

from deformable_vit.backbones.dat.dat import ResidualConvMLP
from deformable_vit.backbones.pvt_v2 import LinearConvMLP
from deformable_vit.layers import MLP, ConvMLP

KINDS = [MLP, ConvMLP, LinearConvMLP, ResidualConvMLP]


@pytest.mark.parametrize('kind', KINDS)
def test_recomputed_activations_are_not_kept(kind: type[MLP]) -> None:
    """One tensor of the hidden size less is kept, and the output and the gradients stay the same."""
    x = torch.randn(2, 4 * 6, 8)
    results, kept = [], []
    for recompute in (True, False):
        torch.manual_seed(0)
        mlp = kind(8, 32, recompute_activation=recompute)
        storages: dict[int, Tensor] = {}

        def keep(t: Tensor, storages: dict[int, Tensor] = storages) -> Tensor:
            if t.numel() == 2 * 4 * 6 * 32:
                storages[t.untyped_storage().data_ptr()] = t
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            out = mlp(x, (4, 6))
        out.square().sum().backward()
        results.append((out, *(p.grad for p in mlp.parameters())))
        kept.append(len(storages))
    assert kept[0] == kept[1] - 1
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_recomputation_repeats_the_random_state_of_forward() -> None:
    """With a second layer that draws random numbers, such as an adapter with dropout."""
    gradients = []
    for recompute in (True, False):
        torch.manual_seed(0)
        mlp = MLP(8, 32, recompute_activation=recompute)
        mlp.fc2 = nn.Sequential(mlp.fc2, nn.Dropout(0.5))
        x = torch.randn(2, 24, 8, requires_grad=True)
        gradients += torch.autograd.grad(mlp(x, (4, 6)).square().sum(), x)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('kind', KINDS)
def test_backward_recomputes_the_activation_and_not_the_product_after_it(kind: type[MLP]) -> None:
    mlp, x = kind(8, 32), torch.randn(1, 24, 8)
    started, ended = [], []
    mlp.fc2.register_forward_pre_hook(lambda *_: started.append(torch.is_grad_enabled()))
    mlp.fc2.register_forward_hook(lambda *_: ended.append(torch.is_grad_enabled()))
    with torch.no_grad():
        assert not mlp(x, (4, 6)).requires_grad
    assert started == ended == [False]
    mlp(x, (4, 6)).sum().backward()
    assert started == [False, True, True]
    assert ended == [False, True]
