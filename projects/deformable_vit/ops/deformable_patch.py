"""Deformable patches: a patch is a box that the picture moves and scales, read at k x k points and projected.

Chen et al., DPT, ACM MM 2021, https://arxiv.org/abs/2107.14467, sections 3.2 and 3.3; the authors' code is at
https://github.com/CASIA-IVA-Lab/DPT.
"""

import torch
from torch import Tensor

from .coordinates import coordinate_dtype
from .deform_conv import deform_conv_at
from .paths import with_reference


def decode_boxes(offsets: Tensor, wh_bias: Tensor) -> Tensor:
    """Boxes from what a network predicts about each patch (DPT, equations 5 to 7).

    A patch of an H' x W' grid is a unit of 1 / H' by 1 / W'; a box is moved by up to one unit from the patch's centre
    and reaches up to one unit from its own centre to each side.

    Args:
        offsets: (B, 4, H', W'), any real numbers: the centre's shift in x and y, then what makes the half width and
            half height.
        wh_bias: (2,), added to the last two.

    Returns:
        (B, 4, H', W') corners x0, y0, x1, y1, in [0, 1], where 0 and 1 are the edges of the map; at least float32.
    """
    h, w = offsets.shape[-2:]
    dtype = coordinate_dtype(offsets)
    shift, size = offsets.to(dtype).split(2, dim=1)
    y = (torch.arange(h, dtype=dtype, device=offsets.device) + 0.5) / h
    x = (torch.arange(w, dtype=dtype, device=offsets.device) + 0.5) / w
    anchors = torch.stack(torch.meshgrid(x, y, indexing='xy'))  # (2, H', W') of (x, y)
    unit = torch.tensor([1 / w, 1 / h], dtype=dtype, device=offsets.device)[:, None, None]
    centre = anchors + shift.tanh() * unit
    half = (size + wh_bias.to(dtype)[:, None, None]).tanh().relu() * unit
    return torch.cat([centre - half, centre + half], dim=1).clamp(0, 1)


@with_reference
def deformable_patch_projection(x: Tensor, boxes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Read k x k points of each box, spread evenly from corner to corner, and project them to one vector.

    Args:
        x: (B, C, H, W).
        boxes: (B, 4, H', W') corners x0, y0, x1, y1, in [0, 1], where 0 and 1 are the edges of the map; see
            :func:`decode_boxes`.
        weight: (D, C, k, k), the last two in y and x.
        bias: (D,).

    Returns:
        (B, D, H', W'). Reading is bilinear, and zero outside the map.
    """
    positions = box_points(boxes, weight.shape[-1], x.shape[-2:])
    projected = deform_conv_at(x, positions[:, None], weight)
    return projected + bias.to(projected.dtype)[:, None, None]


def box_points(boxes: Tensor, k: int, size: tuple[int, int]) -> Tensor:
    """(B, 4, H', W') boxes -> (B, k * k, 2, H', W') points (y, x) in pixels of a map of ``size``, y-major."""
    x0, y0, x1, y1 = (boxes.unsqueeze(2) * boxes.new_tensor([size[1], size[0]] * 2)[:, None, None, None]).unbind(1)
    step = torch.linspace(0, 1, k, dtype=boxes.dtype, device=boxes.device)[:, None, None]
    y, x = y0 + (y1 - y0) * step, x0 + (x1 - x0) * step  # (B, k, H', W') each; pixel i is centred at i + 0.5
    points = torch.broadcast_tensors(y.unsqueeze(2), x.unsqueeze(1))
    return torch.stack(points, dim=3).flatten(1, 2) - 0.5
