"""Deformable patches: a patch is a box, shifted and scaled by the network, read at k x k sampling locations.

Chen et al., DPT, ACM MM 2021, https://arxiv.org/abs/2107.14467, sections 3.2 and 3.3; official implementation:
https://github.com/CASIA-IVA-Lab/DPT.
"""

import torch
from torch import Tensor

from . import reference
from .backends import select_backend
from .coordinates import coordinate_dtype
from .deform_conv import deform_conv_at
from .tracing import constant_size, is_tracing, sizes_tensor


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
    # 1 / n is rounded once outside of tracing, as a number
    unit = 1 / sizes_tensor((w, h), anchors) if is_tracing() else anchors.new_tensor([1 / w, 1 / h])
    unit = unit[:, None, None]
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
    projected = deform_conv_at(x, locations[:, None], weight, backend)
    return projected + bias.to(projected.dtype)[:, None, None]


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
