"""Calls of layers that something may wrap: LoRA, quantization, weight norm, pruning, hooks."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..ops import coordinate_dtype, without_autocast

# Not public in torch, which has no other way to ask; docs/architecture.md names them.
_HOOKS = ('_forward_pre_hooks', '_forward_hooks', '_backward_pre_hooks', '_backward_hooks')


def is_plain(layer: nn.Module) -> bool:
    """Return whether calling a layer does no more than ``F.linear`` with its parameters, so that an op may use them.

    Subclasses, also those of parametrizations and sharding, wrappers, layers with hooks or with another ``forward``,
    and those whose weights are no plain parameters have to be called.
    """
    if type(layer) is not nn.Linear or 'forward' in vars(layer) or any(getattr(layer, hooks) for hooks in _HOOKS):
        return False
    return type(layer.weight) is nn.Parameter and type(layer.bias) in (nn.Parameter, type(None))


def call_in_float(layer: nn.Module, x: Tensor) -> Tensor:
    """Call a layer in float32 or float64 whatever the dtype of autocast and of its parameters is."""
    dtype = coordinate_dtype(x)
    x = x.to(dtype)
    other = {name: p.to(dtype) for name, p in layer.named_parameters() if p.is_floating_point() and p.dtype != dtype}
    with without_autocast(x):
        if not other:
            return cast(Tensor, layer(x))
        if is_plain(layer):  # as torch.jit.trace, which does not know functional_call, needs it
            plain = cast(nn.Linear, layer)
            return F.linear(x, other.get('weight', plain.weight), other.get('bias', plain.bias))
        return functional_call(layer, other, (x,))
