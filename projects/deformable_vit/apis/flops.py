"""Count parameters and FLOPs of a model, as the papers of the field count them.

One multiply-add is one FLOP. Counted are convolutions and matrix products with their biases (one FLOP per output
element), the products of attention, norms (five per element) and interpolation: four multiply-adds for each element
sampled at a deformable location, two for a relative position bias, which is interpolated along y, then along x.
Activations, softmax and element-wise sums are not counted. Counted like this, the variants of DAT-T have the FLOPs of
the paper's ablation to the last printed digit.

Every formula is defined beside the code that it counts: the ops' formulas are in
:data:`deformable_vit.ops.FLOP_FORMULAS`, and a layer whose FLOPs do not follow from its ops has ``extra_flops``.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..ops import FLOP_FORMULAS, use_backend

_BIASED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: nn.Module, inputs: Tensor, **kwargs: Any) -> int:
    """Return the FLOPs of ``model(inputs, **kwargs)`` in evaluation mode.

    Args:
        model: A backbone, or a whole detector, segmentor or classifier, on the CPU.
        inputs: (B, C, H, W).
        kwargs: Further arguments of the model's forward, such as OpenMMLab's ``mode='tensor'``.
    """
    extra = 0  # FLOPs that the shapes of the ops do not show

    def add(module: Any, args: tuple[Any, ...], out: Any) -> None:
        nonlocal extra
        if isinstance(module, _BIASED):
            extra += out.numel() if module.bias is not None else 0
        else:
            extra += 5 * out.numel() if isinstance(module, _NORMS) else module.extra_flops(args, out)

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, (*_BIASED, *_NORMS)) or hasattr(module, 'extra_flops'):
                stack.callback(module.register_forward_hook(add).remove)
        # torch's counter reads the grad_fn of every input of a module, which views of a parameter (the queries of
        # Deformable DETR) do not have under no_grad.
        for parameter in (p for p in model.parameters() if p.requires_grad):
            stack.callback(parameter.requires_grad_(False).requires_grad_, True)
        stack.callback(model.train, model.training)
        model.eval()
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)  # a fused op whose products the counter would not see
        # The FLOPs of a function do not depend on its backend; the formulas are those of this one.
        stack.enter_context(use_backend('separable'))
        counter = stack.enter_context(FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS))
        with torch.no_grad():
            model(inputs, **kwargs)
    # torch counts a multiply-add as two.
    return counter.get_total_flops() // 2 + extra
