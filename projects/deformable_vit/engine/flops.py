"""Count parameters and FLOPs of a model, as the papers of the field count them.

One multiply-add is one FLOP. Counted are convolutions and matrix products with their biases (one FLOP per output
element), the products of attention, norms (five per element) and interpolation: four multiply-adds for each element
sampled at a deformable location, two for a relative position bias, which is interpolated along y, then along x.
Activations, softmax and element-wise sums are not counted. Counted like this, the variants of DAT-T have the FLOPs of
the paper's ablation to the last printed digit.

Every formula is defined beside the code that it counts: the ops' formulas are in
:data:`deformable_vit.ops.FLOP_FORMULAS`, and a layer whose FLOPs do not follow from its ops has ``extra_flops``.
"""

from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from ..ops import FLOP_FORMULAS, use_backend

_NORM = 5


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_flops(model: nn.Module, inputs: Tensor, **kwargs: Any) -> int:
    """Return the FLOPs of ``model(inputs, **kwargs)`` in evaluation mode.

    Args:
        model: A backbone, or a whole detector, segmentor or classifier; on the CPU and not wrapped.
        inputs: (B, C, H, W).
        kwargs: Further arguments of the model's forward, such as OpenMMLab's ``mode='tensor'``.

    Raises:
        ValueError: The model is wrapped, or not on the CPU.
    """
    if is_model_wrapper(model) or inputs.device.type != 'cpu':
        raise ValueError(f'count the FLOPs of a plain model on the CPU, got {type(model).__name__} on {inputs.device}')
    extra = 0  # FLOPs that the shapes of the ops do not show

    def add_bias(_module: nn.Module, _args: tuple[Any, ...], out: Tensor) -> None:
        nonlocal extra
        extra += out.numel()

    def add_norm(_module: nn.Module, _args: tuple[Any, ...], out: Tensor) -> None:
        nonlocal extra
        extra += _NORM * out.numel()

    def add_extra(module: Any, args: tuple[Any, ...], out: Any) -> None:
        nonlocal extra
        extra += module.extra_flops(args, out)

    hooks = []
    for module in model.modules():
        if isinstance(module, (nn.Linear, _ConvNd)) and module.bias is not None:
            hooks.append(module.register_forward_hook(add_bias))
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm, _BatchNorm)):
            hooks.append(module.register_forward_hook(add_norm))
        elif hasattr(module, 'extra_flops'):
            hooks.append(module.register_forward_hook(add_extra))

    # torch's counter reads the grad_fn of every input of a module, which views of a parameter (the queries of
    # Deformable DETR) do not have under no_grad.
    trained = [p for p in model.parameters() if p.requires_grad]
    was_training, fast_path = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    torch.backends.mha.set_fastpath_enabled(False)  # a fused op whose products the counter would not see
    try:
        # The FLOPs of a function do not depend on its backend; the formulas are those of this one.
        with use_backend('separable'), FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
            model(inputs, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        model.train(was_training)
        for parameter in trained:
            parameter.requires_grad_(True)
        for hook in hooks:
            hook.remove()
    # torch counts a multiply-add as two.
    return counter.get_total_flops() // 2 + extra
