"""Conversions between feature maps (B, C, H, W) and tokens (B, H * W, C) in row-major order."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .tracing import ceil_div, constant_size, is_tracing, unflatten


def map_to_tokens(x: Tensor) -> Tensor:
    """Return (B, C, H, W) as (B, H * W, C), a view."""
    return x.flatten(2).transpose(1, 2)


def tokens_to_map(x: Tensor, hw: tuple[int, int]) -> Tensor:
    """Return (B, H * W, C) as (B, C, H, W), a view in channels-last memory format if the tokens are contiguous."""
    return unflatten(x.transpose(1, 2), 2, hw)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) with zeros at the bottom and right so that ``multiple`` divides H and W."""
    pad_h, pad_w = (ceil_div(n, multiple) * multiple - n for n in x.shape[-2:])
    return F.pad(x, (0, pad_w, 0, pad_h)) if is_tracing() or pad_h or pad_w else x


def interleave(parts: Sequence[Sequence[Tensor]], hw: tuple[int, int]) -> Tensor:
    """Return the feature map (B, C, H, W) whose rows y, y + 2, ... and columns x, x + 2, ... are ``parts[y][x]``.

    Args:
        parts: 2 x 2 feature maps (B, C, ceil((H - y) / 2), ceil((W - x) / 2)).
        hw: (H, W).
    """
    size = parts[0][0].shape[-2:]
    padded = [F.pad(p, (0, size[1] - p.shape[-1], 0, size[0] - p.shape[-2])) for row in parts for p in row]
    return F.pixel_shuffle(torch.stack(padded, dim=2).flatten(1, 2), 2)[..., : hw[0], : hw[1]].contiguous()


def resize_position_embedding(
    embedding: Tensor, source: tuple[int, int], target: tuple[int, int], num_extra: int = 0
) -> Tensor:
    """Resize an absolute position embedding bilinearly to another grid (official PVT implementation).

    Args:
        embedding: (1, num_extra + source_h * source_w, C).
        source: (height, width) of the embedding's grid.
        target: (height, width) of the new grid.
        num_extra: Leading entries without a position, such as the class token's; they are kept.

    Returns:
        (1, num_extra + target_h * target_w, C); the same tensor if the grids are equal.
    """
    if constant_size(embedding, 1) != num_extra + source[0] * source[1]:
        raise ValueError(
            f'expected a position embedding of {num_extra} + {source[0]} x {source[1]} entries, '
            f'got {embedding.shape[1]}'
        )
    if not is_tracing() and source == target:  # resizing to the same size changes nothing
        return embedding
    extra, grid = embedding[:, :num_extra], embedding[:, num_extra:]
    grid = F.interpolate(tokens_to_map(grid, source), size=target, mode='bilinear', align_corners=False)
    return torch.cat([extra, map_to_tokens(grid)], dim=1)
