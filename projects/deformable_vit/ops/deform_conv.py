"""A convolution that reads at given sampling locations, with a backend for CUDA and one for the CPU.

``mmcv``, the default on CUDA, is mmcv's compiled deformable convolution, wrapped as a custom op so that
``torch.compile`` sees one operation. mmcv's kernels support float64, float32 and float16 but not bfloat16, and float16
locations would lose pixels: the kernels always run in float32 or better.

``grid_sample`` is the default on the CPU, where mmcv's kernels use one core. Forward and backward of stage 2 of DPT-T
at 800 x 1344, on two cores, take 1.0 s instead of 2.3 s; of stage 3 of DAT-T 0.09 s instead of 0.39 s.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.utils import ext_loader
from torch import Tensor

from .coordinates import autocast_dtype, coordinate_dtype
from .tracing import is_tracing, unflatten

_ext = ext_loader.load_ext(
    '_ext', ['deform_conv_forward', 'deform_conv_backward_input', 'deform_conv_backward_parameters']
)


def deform_conv_at(x: Tensor, locations: Tensor, weight: Tensor, backend: str = 'auto') -> Tensor:
    """Sum over sampling locations and channels: weight times the feature map's bilinear value, zero outside the map.

    Args:
        x: (B, C, H, W).
        locations: (B, G, kh * kw, 2, H', W'), for each group of C / G channels, kernel element and output pixel the
            (y, x) in pixels of ``x``; whole numbers are pixel centers.
        weight: (D, C, kh, kw).
        backend: ``auto``, ``grid_sample`` or ``mmcv``.

    Returns:
        (B, D, H', W') in the dtype of ``x``, or in that of autocast where it is enabled.
    """
    if backend == 'auto':
        backend = 'grid_sample' if x.device.type == 'cpu' or is_tracing() else 'mmcv'
    compute = _by_grid_sample if backend == 'grid_sample' else _by_mmcv
    return compute(x, locations, weight).to(autocast_dtype(x))


def _by_grid_sample(x: Tensor, locations: Tensor, weight: Tensor) -> Tensor:
    b, groups, points, _, *out = locations.shape
    c, h, w = x.shape[1:]
    dtype = coordinate_dtype(x)
    y, x_ = locations.to(dtype).flatten(0, 1).unbind(2)  # (B * G, kh * kw, H', W') each
    # From pixels to -1 and 1 at the outer borders of the map: with align_corners, an axis of one pixel divides by zero.
    grid = torch.stack([(x_ + 0.5) / w * 2 - 1, (y + 0.5) / h * 2 - 1], dim=-1).flatten(1, 2)
    sampled = F.grid_sample(x.to(dtype).reshape(b * groups, c // groups, h, w), grid, align_corners=False)
    sampled = sampled.view(b, c * points, -1)  # channels, then kernel elements, as in a kernel
    return unflatten(weight.to(dtype).flatten(1) @ sampled, 2, out)


def _by_mmcv(x: Tensor, locations: Tensor, weight: Tensor) -> Tensor:
    kernel, out = weight.shape[-2:], locations.shape[-2:]
    # mmcv adds offsets to a regular grid. Which grid is irrelevant, as the offsets are relative to it, but it must have
    # H' x W' positions. That takes a stride, and sometimes zero padding, which reads as what lies outside.
    stride = [max(size - k, 0) // n + 1 for size, k, n in zip(x.shape[-2:], kernel, out, strict=True)]
    extent = [(n - 1) * s + k for n, s, k in zip(out, stride, kernel, strict=True)]
    pad_h, pad_w = (max(need - size, 0) for need, size in zip(extent, x.shape[-2:], strict=True))
    dtype = coordinate_dtype(x)
    x, locations, weight = x.to(dtype), locations.to(dtype), weight.to(dtype)
    if pad_h or pad_w:
        x = F.pad(x, (0, pad_w, 0, pad_h))
    y = torch.arange(out[0], dtype=dtype, device=x.device)[:, None] * stride[0]
    x_ = torch.arange(out[1], dtype=dtype, device=x.device) * stride[1]
    ky, kx = (torch.arange(k, dtype=dtype, device=x.device) for k in kernel)
    grid = torch.broadcast_tensors(ky[:, None, None, None] + y, kx[:, None, None] + x_)  # (kh, kw, H', W') each
    offset = locations - torch.stack(grid, dim=2).flatten(0, 1)
    return _deform_conv(x, offset.flatten(1, 3), weight, stride, locations.shape[1])


def _grid_sample_flops(_x: torch.Size, _grid: torch.Size, *_args: Any, out_shape: torch.Size, **_kwargs: Any) -> int:
    """Count four products per sampled element; torch's counter counts a product with its addition as two."""
    return 2 * 4 * math.prod(out_shape)


def _sizes(weight: Tensor, stride: list[int], groups: int, batch: int) -> dict[str, int]:
    # As many images at once as mmcv's default allows; it requires a divisor of the batch size.
    step = next(n for n in range(min(batch, 32), 0, -1) if batch % n == 0)
    return dict(
        kW=weight.shape[3], kH=weight.shape[2], dW=stride[1], dH=stride[0], padW=0, padH=0, dilationW=1, dilationH=1,
        group=1, deformable_group=groups, im2col_step=step,
    )  # fmt: skip


@torch.library.custom_op('deformable_vit::deform_conv', mutates_args=())
def _deform_conv(x: Tensor, offset: Tensor, weight: Tensor, stride: list[int], groups: int) -> Tensor:
    out = x.new_empty(len(x), len(weight), *offset.shape[-2:])
    columns, ones = x.new_empty(0), x.new_empty(0)
    x, offset, weight = x.contiguous(), offset.contiguous(), weight.contiguous()  # mmcv ignores strides
    _ext.deform_conv_forward(x, weight, offset, out, columns, ones, **_sizes(weight, stride, groups, len(x)))
    return out


@_deform_conv.register_fake
def _(x: Tensor, offset: Tensor, weight: Tensor, stride: list[int], groups: int) -> Tensor:
    return x.new_empty(len(x), len(weight), *offset.shape[-2:])


def _deform_conv_flops(
    _x: torch.Size, _offset: torch.Size, weight: torch.Size, *_args: Any, out_shape: torch.Size, **_kwargs: Any
) -> int:
    """Count the projection, and four products per sampled element."""
    pixels = out_shape[0] * out_shape[2] * out_shape[3]
    return 2 * pixels * math.prod(weight[1:]) * (weight[0] + 4)


FLOP_FORMULAS = {
    torch.ops.aten.grid_sampler_2d: _grid_sample_flops,
    torch.ops.deformable_vit.deform_conv: _deform_conv_flops,
}


@torch.library.custom_op('deformable_vit::deform_conv_backward', mutates_args=())
def _deform_conv_backward(
    grad: Tensor, x: Tensor, offset: Tensor, weight: Tensor, stride: list[int], groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    grad, x, offset, weight = (t.contiguous() for t in (grad, x, offset, weight))
    grads = torch.zeros_like(x), torch.zeros_like(offset), torch.zeros_like(weight)
    columns, ones, sizes = x.new_empty(0), x.new_empty(0), _sizes(weight, stride, groups, len(x))
    _ext.deform_conv_backward_input(x, offset, grad, grads[0], grads[1], weight, columns, **sizes)
    _ext.deform_conv_backward_parameters(x, offset, grad, grads[2], columns, ones, scale=1, **sizes)
    return grads


@_deform_conv_backward.register_fake
def _(
    grad: Tensor, x: Tensor, offset: Tensor, weight: Tensor, stride: list[int], groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), offset.new_empty(offset.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.stride, ctx.groups = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_deform_conv_backward(grad, *ctx.saved_tensors, ctx.stride, ctx.groups), None, None


_deform_conv.register_autograd(_backward, setup_context=_save)
