"""Deformable sampling: a feature map is read at sampling locations, bilinearly.

The keys and values of deformable attention (DAT) are samples that layers project. A deformable patch (DPT) has k x k
samples; reading them and projecting them is a convolution at given sampling locations, :func:`deform_conv_at`, with a
backend for CUDA and one for the CPU:

- ``mmcv``, the default on CUDA, is mmcv's compiled deformable convolution, wrapped as a custom op so that
  ``torch.compile`` sees one operation. It keeps no samples for backward. mmcv's kernels support float64, float32 and
  float16 but not bfloat16, and float16 locations would lose pixels: the kernels always run in float32 or better.
- ``grid_sample`` is the default on the CPU, where mmcv's kernels use one core, and without mmcv's ops. Forward and
  backward of stage 2 of DPT-T at 800 x 1344, on two cores, take 1.0 s instead of 2.3 s.

Chen et al., DPT, ACM MM 2021, https://arxiv.org/abs/2107.14467, sections 3.2 and 3.3; official implementation:
https://github.com/CASIA-IVA-Lab/DPT. DAT: see :mod:`.attention`.
"""

import math
import warnings
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference
from .backends import select_backend
from .coordinates import autocast_dtype, coordinate_dtype
from .tracing import constant_size, is_tracing, sizes_tensor, unflatten


def decode_boxes(offsets: Tensor, wh_bias: Tensor) -> Tensor:
    """Decode the predictions of each patch to boxes (DPT, equations 5 to 7).

    A patch of an H' x W' grid is a unit of 1 / H' by 1 / W'. A box center moves by up to one unit from the patch
    center, and a box extends by up to one unit from its center to each side.

    Args:
        offsets: (B, 4, H', W'), unbounded: the shift of the center in x and y, then the half width and half height
            before activation.
        wh_bias: (2,), added to the last two.

    Returns:
        (B, 4, H', W'), corners x0, y0, x1, y1 in [0, 1], from border to border of the feature map; at least float32.
    """
    h, w = offsets.shape[-2:]
    dtype = coordinate_dtype(offsets)
    shift, size = offsets.to(dtype).split(2, dim=1)
    y = (torch.arange(h, dtype=dtype, device=offsets.device) + 0.5) / h
    x = (torch.arange(w, dtype=dtype, device=offsets.device) + 0.5) / w
    anchors = torch.stack(torch.meshgrid(x, y, indexing='xy'))  # (2, H', W') of (x, y)
    unit = 1 / sizes_tensor((w, h), anchors)[:, None, None]
    center = anchors + shift.tanh() * unit
    half = (size + wh_bias.to(dtype)[:, None, None]).tanh().relu() * unit
    return torch.cat([center - half, center + half], dim=1).clamp(0, 1)


def deformable_patch_projection(
    x: Tensor, boxes: Tensor, weight: Tensor, bias: Tensor, backend: str | None = None
) -> Tensor:
    """Read k x k locations of each box, evenly spaced from corner to corner, and project them to one vector.

    Args:
        x: (B, C, H, W).
        boxes: (B, 4, H', W'), corners x0, y0, x1, y1 in [0, 1] as of :func:`decode_boxes`.
        weight: (D, C, k, k), the last two in y and x.
        bias: (D,).
        backend: ``auto``, ``reference``, ``grid_sample`` or ``mmcv``; see :mod:`.backends`.

    Returns:
        (B, D, H', W'). Reads are bilinear, and zero outside the feature map.
    """
    backend = select_backend('deformable_patch_projection', backend, ('reference', 'grid_sample', 'mmcv'))
    if backend == 'reference':
        return reference.deformable_patch_projection(x, boxes, weight, bias)
    locations = box_locations(boxes, constant_size(weight, -1), (x.shape[-2], x.shape[-1]))
    projected = deform_conv_at(x, locations, weight, backend)
    return projected + bias.to(projected.dtype)[:, None, None]


def deformable_patch_samples(x: Tensor, boxes: Tensor, k: int) -> Tensor:
    """Read the k x k locations of each box as :func:`deformable_patch_projection` does, without projecting them.

    Returns:
        (B, H' * W', k * k * C), by location, x-major, then by channel.
    """
    samples = sample_at(x, box_locations(boxes, k, (x.shape[-2], x.shape[-1])))
    return unflatten(samples, 2, (k, k)).permute(0, 4, 3, 2, 1).flatten(2).to(autocast_dtype(x))


def box_locations(boxes: Tensor, k: int, size: tuple[int, int]) -> Tensor:
    """Return the sampling locations of boxes on a feature map of ``size`` (height, width).

    Args:
        boxes: (B, 4, H', W') as of :func:`decode_boxes`.
        k: Locations along each axis of a box.
        size: Height and width of the feature map in pixels.

    Returns:
        (B, k * k, 2, H', W'), (y, x) in pixels, y-major; whole numbers are pixel centers.
    """
    x0, y0, x1, y1 = (boxes.unsqueeze(2) * sizes_tensor([size[1], size[0]] * 2, boxes)[:, None, None, None]).unbind(1)
    step = torch.linspace(0, 1, k, dtype=boxes.dtype, device=boxes.device)[:, None, None]
    y, x = y0 + (y1 - y0) * step, x0 + (x1 - x0) * step  # (B, k, H', W') each; pixel i is centered at i + 0.5
    locations = torch.broadcast_tensors(y.unsqueeze(2), x.unsqueeze(1))
    return torch.stack(locations, dim=3).flatten(1, 2) - 0.5


def deformable_sampling(x: Tensor, locations: Tensor, backend: str | None = None) -> Tensor:
    """Sample a feature map at given locations, in groups of channels.

    Args:
        x: (B, C, H, W).
        locations: (B, G, H', W', 2), for each of G groups of channels normalized (y, x), where -1 and 1 are the centers
            of the corner pixels. Reads are bilinear, and zero outside the feature map.
        backend: ``auto``, ``reference`` or ``grid_sample``; see :mod:`.backends`.

    Returns:
        (B, H' * W', C) in the dtype of ``x``, or in that of autocast where it is enabled.
    """
    backend = select_backend('deformable_sampling', backend, ('reference', 'grid_sample'))
    if backend == 'reference':
        return reference.deformable_sampling(x, locations)
    b, groups = locations.shape[:2]
    dtype = coordinate_dtype(x)
    features = unflatten(x.to(dtype), 1, (groups, -1)).flatten(0, 1)
    samples = F.grid_sample(features, locations.to(dtype).flip(-1).flatten(0, 1), align_corners=True)
    return samples.view(b, x.shape[1], -1).transpose(1, 2).contiguous().to(autocast_dtype(x))


# Without importing mmcv, and a constant, on which torch.compile guards.
_mmcv = find_spec('mmcv')
HAS_MMCV_OPS = _mmcv is not None and any(list(Path(d).glob('_ext.*')) for d in _mmcv.submodule_search_locations or ())
_INSTALL = (
    "In a checkout run `make setup`. Elsewhere run: pip install 'setuptools<80' wheel ninja && "
    'pip install --no-build-isolation --no-deps --no-cache-dir --no-binary mmcv --force-reinstall mmcv==2.1.0'
)


def deform_conv_at(x: Tensor, locations: Tensor, weight: Tensor, backend: str = 'auto') -> Tensor:
    """Sum over sampling locations and channels: weight times the feature map's bilinear value, zero outside the map.

    Args:
        x: (B, C, H, W).
        locations: (B, kh * kw, 2, H', W'), for each kernel element and output pixel the (y, x) in pixels of ``x``;
            whole numbers are pixel centers.
        weight: (D, C, kh, kw).
        backend: ``auto``, ``grid_sample`` or ``mmcv``.

    Returns:
        (B, D, H', W') in the dtype of ``x``, or in that of autocast where it is enabled.
    """
    if backend == 'auto':
        backend = default_backend(x.device.type)
    compute = _by_grid_sample if backend == 'grid_sample' else _by_mmcv
    return compute(x, locations, weight).to(autocast_dtype(x))


def default_backend(device: str) -> str:
    """Return the backend that ``auto`` runs on a type of device; warn once where mmcv's would be faster."""
    if device == 'cpu' or is_tracing():
        return 'grid_sample'
    if not HAS_MMCV_OPS and not torch.compiler.is_compiling():
        _warn_without_mmcv()
    return 'mmcv' if HAS_MMCV_OPS else 'grid_sample'


def sample_at(x: Tensor, locations: Tensor) -> Tensor:
    """Read (B, C, H, W) at locations as of :func:`deform_conv_at`: (B, C, kh * kw, H' * W'), at least float32."""
    h, w = x.shape[-2:]
    dtype = coordinate_dtype(x)
    y, x_ = locations.to(dtype).flatten(3).unbind(2)  # (B, kh * kw, H' * W') each
    # From pixels to -1 and 1 at the outer borders of the map: with align_corners, an axis of one pixel divides by zero.
    grid = torch.stack([(x_ + 0.5) / w * 2 - 1, (y + 0.5) / h * 2 - 1], dim=-1)
    return F.grid_sample(x.to(dtype), grid, align_corners=False)


def _by_grid_sample(x: Tensor, locations: Tensor, weight: Tensor) -> Tensor:
    sampled = sample_at(x, locations).flatten(1, 2)  # channels, then kernel elements, as in a kernel
    return unflatten(weight.to(sampled.dtype).flatten(1) @ sampled, 2, locations.shape[-2:])


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
    return _deform_conv(x, offset.flatten(1, 2), weight, stride)


def _grid_sample_flops(_x: torch.Size, _grid: torch.Size, *_args: Any, out_shape: torch.Size, **_kwargs: Any) -> int:
    """Count four products per sampled element; torch's counter counts a product with its addition as two."""
    return 2 * 4 * math.prod(out_shape)


@lru_cache
def _mmcv_ops() -> Any:
    """Return mmcv's compiled ops.

    Raises:
        ImportError: mmcv is not installed, or without compiled ops.
    """
    try:
        from mmcv.utils import ext_loader

        names = ['deform_conv_forward', 'deform_conv_backward_input', 'deform_conv_backward_parameters']
        return ext_loader.load_ext('_ext', names)
    except ImportError as error:
        raise ImportError(f"the backend 'mmcv' needs mmcv with its compiled ops ({error}). {_INSTALL}") from error


@lru_cache
def _warn_without_mmcv() -> None:
    warnings.warn(
        f"mmcv's compiled ops are missing, so the backend 'auto' runs 'grid_sample'. {_INSTALL}", stacklevel=3
    )


def _sizes(weight: Tensor, stride: list[int], batch: int) -> dict[str, int]:
    # As many images at once as mmcv's default allows; it requires a divisor of the batch size.
    step = next(n for n in range(min(batch, 32), 0, -1) if batch % n == 0)
    return dict(
        kW=weight.shape[3], kH=weight.shape[2], dW=stride[1], dH=stride[0], padW=0, padH=0, dilationW=1, dilationH=1,
        group=1, deformable_group=1, im2col_step=step,
    )  # fmt: skip


@torch.library.custom_op('deformable_vit::deform_conv', mutates_args=())
def _deform_conv(x: Tensor, offset: Tensor, weight: Tensor, stride: list[int]) -> Tensor:
    out = x.new_empty(len(x), len(weight), *offset.shape[-2:])
    columns, ones = x.new_empty(0), x.new_empty(0)
    x, offset, weight = x.contiguous(), offset.contiguous(), weight.contiguous()  # mmcv ignores strides
    _mmcv_ops().deform_conv_forward(x, weight, offset, out, columns, ones, **_sizes(weight, stride, len(x)))
    return out


@_deform_conv.register_fake
def _(x: Tensor, offset: Tensor, weight: Tensor, stride: list[int]) -> Tensor:
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
    grad: Tensor, x: Tensor, offset: Tensor, weight: Tensor, stride: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    grad, x, offset, weight = (t.contiguous() for t in (grad, x, offset, weight))
    grads = torch.zeros_like(x), torch.zeros_like(offset), torch.zeros_like(weight)
    columns, ones, sizes = x.new_empty(0), x.new_empty(0), _sizes(weight, stride, len(x))
    _mmcv_ops().deform_conv_backward_input(x, offset, grad, grads[0], grads[1], weight, columns, **sizes)
    _mmcv_ops().deform_conv_backward_parameters(x, offset, grad, grads[2], columns, ones, scale=1, **sizes)
    return grads


@_deform_conv_backward.register_fake
def _(grad: Tensor, x: Tensor, offset: Tensor, weight: Tensor, stride: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), offset.new_empty(offset.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.stride = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_deform_conv_backward(grad, *ctx.saved_tensors, ctx.stride), None


_deform_conv.register_autograd(_backward, setup_context=_save)
