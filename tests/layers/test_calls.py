"""Which layers an op may compute from their weights, and calls in float32."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn.quantized.dynamic import Linear as QuantizedLinear
from torch.nn.utils import parametrizations, prune, weight_norm

from deformable_vit.layers import call_in_float, is_plain


class Subclass(nn.Linear):
    pass


def patched(layer: nn.Linear) -> nn.Linear:
    layer.forward = lambda x: 2 * nn.functional.linear(x, layer.weight, layer.bias)
    return layer


def with_weight(layer: nn.Linear, weight: Tensor) -> nn.Linear:
    del layer.weight
    layer.weight = weight
    return layer


NOT_PLAIN: dict[str, Callable[[nn.Linear], Any]] = {
    'subclass': lambda layer: Subclass(3, 2),
    'wrapper': nn.Sequential,
    'quantized': lambda layer: QuantizedLinear(3, 2),
    'weight norm': weight_norm,
    'parametrization': parametrizations.weight_norm,
    'spectral norm': parametrizations.spectral_norm,
    'pruning': lambda layer: prune.identity(layer, 'weight'),
    'forward': patched,
    'computed weight': lambda layer: with_weight(layer, torch.randn(2, 3)),
}
HOOKS: dict[str, Callable[..., Any]] = {
    'register_forward_pre_hook': lambda layer, args: (args[0] + 1,),
    'register_forward_hook': lambda layer, args, out: out + 1,
    'register_full_backward_pre_hook': lambda layer, grad: None,
    'register_full_backward_hook': lambda layer, grad_in, grad_out: None,
}


def test_a_linear_layer_is_plain() -> None:
    for layer in (nn.Linear(3, 2), nn.Linear(3, 2, bias=False).half(), nn.Linear(3, 2).eval().requires_grad_(False)):
        assert is_plain(layer)


@pytest.mark.parametrize('change', NOT_PLAIN)
def test_other_layers_are_called(change: str) -> None:
    assert not is_plain(NOT_PLAIN[change](nn.Linear(3, 2)))


@pytest.mark.parametrize('method', HOOKS)
def test_a_layer_with_hooks_is_called(method: str) -> None:
    """It fails if torch keeps the hooks elsewhere."""
    layer = nn.Linear(3, 2)
    handle = getattr(layer, method)(HOOKS[method])
    assert not is_plain(layer)
    handle.remove()
    assert is_plain(layer)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_calls_in_float_round_nothing_but_the_weights(dtype: torch.dtype) -> None:
    layer, x = nn.Linear(64, 2).to(dtype), torch.randn(5, 64).to(dtype)
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    for change in (lambda layer: layer, nn.Sequential, weight_norm):
        with torch.autocast('cpu', torch.bfloat16):
            out = call_in_float(change(layer), x)
        assert out.dtype == torch.float32
        assert (out - exact).norm() < (1e-6 if change is not weight_norm else 3e-2) * exact.norm()
    out.sum().backward()
    assert all(p.grad.any() for p in layer.parameters())


def test_calls_in_float_keep_float64() -> None:
    layer, x = nn.Linear(4, 2).double(), torch.randn(3, 4).double()
    torch.testing.assert_close(call_in_float(layer, x), layer(x), rtol=0, atol=0)


def test_calls_in_float_run_hooks() -> None:
    layer, x = nn.Linear(4, 2).half(), torch.randn(3, 4).half()
    plain = call_in_float(layer, x)
    layer.register_forward_hook(lambda _layer, _args, out: out + 1)
    torch.testing.assert_close(call_in_float(layer, x), plain + 1)
