"""Parameters and FLOPs of a model, as the papers of the field count them.

A multiplication with its addition is one FLOP. Counted are convolutions and matrix products with their biases (one per
number that comes out), attention products, norms (five per number) and reads between pixels: four products for a
feature of a deformable patch or key; two for a relative position bias, which is read first along y, then along x.
Activations, softmax and sums of maps are not. So counted, the variants of DAT-T have the FLOPs of the paper's ablation
to the last printed digit.
"""

import math

import torch
from mmengine.model import is_model_wrapper
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..layers import DeformableAttention, DeformablePatchEmbed, NeighborhoodAttention
from ..ops import use_path
from ..ops.tiled_attention import surplus_pairs

_READ = 4
_NORM = 5
_Shape = torch.Size


# Formulas by shapes, for torch's counter, which counts a multiplication with its addition as two.
def _sdpa(query: _Shape, key: _Shape, value: _Shape, *_args: object, **_kwargs: object) -> int:
    return sdpa_flop_count(query, key, value)


def _grid_sample(_x: _Shape, _grid: _Shape, *_args: object, out_shape: _Shape, **_kwargs: object) -> int:
    return 2 * _READ * math.prod(out_shape)


def _biased_attention(query: _Shape, key: _Shape, value: _Shape, *_args: object, **_kwargs: object) -> int:
    """Its biases as ``grid_sample`` would read them; see what count_flops takes off again."""
    return sdpa_flop_count(query, key, value) + 2 * _READ * math.prod(query[:3]) * key[2]


_FORMULAS = {
    torch.ops.deformable_vit.biased_attention: _biased_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa,
    torch.ops.aten.grid_sampler_2d: _grid_sample,
}


def count_parameters(model: nn.Module) -> int:
    """Every number that is trained, or would be if it were not frozen."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_flops(model: nn.Module, inputs: Tensor, **kwargs: object) -> int:
    """FLOPs of ``model(inputs, **kwargs)`` in evaluation mode.

    Args:
        model: Of one of the hosts, or a backbone, on the CPU and not wrapped.
        inputs: (B, C, H, W).
        kwargs: What else the model's forward takes, such as the hosts' ``mode='tensor'``.
    """
    if is_model_wrapper(model) or inputs.device.type != 'cpu':
        raise ValueError(f'count the FLOPs of a plain model on the CPU, got {type(model).__name__} on {inputs.device}')
    extra = 0  # what is not seen in the shapes of operators, and less what they do beyond the function

    def linear(_layer: nn.Module, _args: tuple, out: Tensor) -> None:
        nonlocal extra
        extra += out.numel()

    def norm(_layer: nn.Module, _args: tuple, out: Tensor) -> None:
        nonlocal extra
        extra += _NORM * out.numel()

    def neighborhood(layer: NeighborhoodAttention, args: tuple[Tensor, tuple[int, int]], _out: Tensor) -> None:
        nonlocal extra
        x, hw = args
        extra -= 2 * len(x) * x.shape[-1] * surplus_pairs(hw, layer.kernel_size)

    def deformable(layer: DeformableAttention, args: tuple[Tensor, tuple[int, int]], _out: Tensor) -> None:
        nonlocal extra
        x, hw = args
        keys = len(x) * math.prod(layer.key_size(hw))
        extra += keys * 2 * x.shape[-1]  # the biases of keys and values
        if layer.rpe_table is not None:
            extra -= (_READ - 2) * keys * math.prod(hw) * layer.num_heads  # read bilinearly, in one step

    def patches(_layer: DeformablePatchEmbed, _args: tuple, out: tuple[Tensor, tuple[int, int]]) -> None:
        nonlocal extra
        extra += out[0].numel()  # the bias of the projection

    hooks = []
    for module in model.modules():
        if isinstance(module, (nn.Linear, _ConvNd)) and module.bias is not None:
            hooks.append(module.register_forward_hook(linear))
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm, _BatchNorm)):
            hooks.append(module.register_forward_hook(norm))
        elif isinstance(module, NeighborhoodAttention):
            hooks.append(module.register_forward_hook(neighborhood))
        elif isinstance(module, DeformableAttention):
            hooks.append(module.register_forward_hook(deformable))
        elif isinstance(module, DeformablePatchEmbed):
            hooks.append(module.register_forward_hook(patches))

    # torch's counter looks for the gradient function of what a layer is given, which halves of a parameter (the queries
    # of Deformable DETR) do not have here.
    trained = [p for p in model.parameters() if p.requires_grad]
    was_training, fused = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator whose products the counter would not see
    try:
        # The formulas are of the fast operators; the function, and so its FLOPs, are the same by any way.
        with use_path('auto'), FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
            model(inputs, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        model.train(was_training)
        for parameter in trained:
            parameter.requires_grad_(True)
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2 + extra
