"""A convolution that reads at given places: a path for CUDA and one for the CPU behind one function.

On CUDA it is mmcv's compiled deformable convolution, wrapped as an operator of torch, so that ``torch.compile`` sees
one operation, not a call into C++. mmcv's kernels know float64, float32 and half but not bfloat16, and half positions
would lose pixels: they always run in float32 or better.

On the CPU mmcv's kernels use one core. There torch reads the points and a matrix product projects them. Forward and
backward of stage 2 of DPT-T at 800 x 1344, on two cores: 1.0 s instead of 2.3 s; of stage 3 of DAT-T: 0.09 s instead of
0.39 s.
"""

import torch
import torch.nn.functional as F
from mmcv.utils import ext_loader
from torch import Tensor

from .coordinates import coordinate_dtype

_ext = ext_loader.load_ext(
    '_ext', ['deform_conv_forward', 'deform_conv_backward_input', 'deform_conv_backward_parameters']
)


def deform_conv_at(x: Tensor, positions: Tensor, weight: Tensor) -> Tensor:
    """Sum over points and channels of weight times the map's value at each point, bilinear, zero outside the map.

    Args:
        x: (B, C, H, W).
        positions: (B, G, kh * kw, 2, H', W'), for each group of C / G channels, point and output pixel the (y, x) in
            pixels of the map; whole numbers are pixel centres.
        weight: (D, C, kh, kw).

    Returns:
        (B, D, H', W') in the dtype of ``x``, or of autocast where that is on.
    """
    path = sample_and_project if x.device.type == 'cpu' else mmcv_deform_conv
    return path(x, positions, weight).to(_autocast_dtype(x))


def sample_and_project(x: Tensor, positions: Tensor, weight: Tensor) -> Tensor:
    """:func:`deform_conv_at` by torch's ``grid_sample`` and a matrix product; the fast path on a CPU."""
    b, groups, points, _, *out = positions.shape
    c, h, w = x.shape[1:]
    dtype = coordinate_dtype(x)
    y, x_ = positions.to(dtype).flatten(0, 1).unbind(2)  # (B * G, kh * kw, H', W') each
    # From pixels to -1 and 1 at the edges of the map: corners would divide by zero on an axis of one pixel.
    grid = torch.stack([(x_ + 0.5) / w * 2 - 1, (y + 0.5) / h * 2 - 1], dim=-1).flatten(1, 2)
    read = F.grid_sample(x.to(dtype).reshape(b * groups, c // groups, h, w), grid, align_corners=False)
    read = read.view(b, c * points, -1)  # channels, then points, as in a kernel
    return (weight.to(dtype).flatten(1) @ read).unflatten(2, out)


def mmcv_deform_conv(x: Tensor, positions: Tensor, weight: Tensor) -> Tensor:
    """:func:`deform_conv_at` by mmcv's deformable convolution; the fast path on CUDA."""
    kernel, out = weight.shape[-2:], positions.shape[-2:]
    # The regular grid that mmcv adds its offsets to is of no interest here. It only has to have H' x W' places, which
    # takes a stride, and sometimes rows and columns of zeros behind the map; what is read outside is zero anyway.
    stride = [max(size - k, 0) // n + 1 for size, k, n in zip(x.shape[-2:], kernel, out, strict=True)]
    extent = [(n - 1) * s + k for n, s, k in zip(out, stride, kernel, strict=True)]
    pad_h, pad_w = (max(need - size, 0) for need, size in zip(extent, x.shape[-2:], strict=True))
    dtype = coordinate_dtype(x)
    x, positions, weight = x.to(dtype), positions.to(dtype), weight.to(dtype)
    if pad_h or pad_w:
        x = F.pad(x, (0, pad_w, 0, pad_h))
    y = torch.arange(out[0], dtype=dtype, device=x.device)[:, None] * stride[0]
    x_ = torch.arange(out[1], dtype=dtype, device=x.device) * stride[1]
    ky, kx = (torch.arange(k, dtype=dtype, device=x.device) for k in kernel)
    grid = torch.broadcast_tensors(ky[:, None, None, None] + y, kx[:, None, None] + x_)  # (kh, kw, H', W') each
    offset = positions - torch.stack(grid, dim=2).flatten(0, 1)
    return _deform_conv(x, offset.flatten(1, 3), weight, stride, positions.shape[1])


def _autocast_dtype(x: Tensor) -> torch.dtype:
    """The dtype that autocast would give the product of ``x`` and a weight: its own, where autocast is off."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _sizes(weight: Tensor, stride: list[int], groups: int, batch: int) -> dict[str, int]:
    # As many pictures at once as mmcv's default allows; it wants a divisor of the batch.
    step = next(n for n in range(min(batch, 32), 0, -1) if batch % n == 0)
    return dict(
        kW=weight.shape[3], kH=weight.shape[2], dW=stride[1], dH=stride[0], padW=0, padH=0, dilationW=1, dilationH=1,
        group=1, deformable_group=groups, im2col_step=step,
    )  # fmt: skip


@torch.library.custom_op('deformable_vit::deform_conv', mutates_args=())
def _deform_conv(x: Tensor, offset: Tensor, weight: Tensor, stride: list[int], groups: int) -> Tensor:
    out = x.new_empty(len(x), len(weight), *offset.shape[-2:])
    columns, ones = x.new_empty(0), x.new_empty(0)
    x, offset, weight = x.contiguous(), offset.contiguous(), weight.contiguous()  # mmcv reads memory as if they were
    _ext.deform_conv_forward(x, weight, offset, out, columns, ones, **_sizes(weight, stride, groups, len(x)))
    return out


@_deform_conv.register_fake
def _(x: Tensor, offset: Tensor, weight: Tensor, stride: list[int], groups: int) -> Tensor:
    return x.new_empty(len(x), len(weight), *offset.shape[-2:])


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


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.stride, ctx.groups = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad: Tensor) -> tuple:
    return *_deform_conv_backward(grad, *ctx.saved_tensors, ctx.stride, ctx.groups), None, None


_deform_conv.register_autograd(_backward, setup_context=_save)
