"""Deformable Patch-based Transformer (DPT): PVT whose patches the network shifts and scales.

Chen et al., ACM MM 2021, https://arxiv.org/abs/2107.14467; official implementation:
https://github.com/CASIA-IVA-Lab/DPT.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..layers import PatchEmbed, call_in_float, is_plain
from ..ops import (
    coordinate_dtype,
    decode_boxes,
    deformable_patch_projection,
    deformable_patch_samples,
    map_to_tokens,
    pad_to_multiple,
    tokens_to_map,
)
from .pvt import PVT


class DeformablePatchEmbed(nn.Module):
    """Patch embedding with deformable patches (DPT, section 3.3).

    A plain patch embedding predicts one box per patch; a token is projected from k x k sampling locations in its box.

    Args:
        in_channels: Number of input channels.
        dim: Number of channels of the tokens.
        stride: Size of the plain patches in pixels.
        points: k, the number of sampling locations along each axis of a box.
    """

    def __init__(self, in_channels: int, dim: int, stride: int, points: int = 3) -> None:
        super().__init__()
        self.points = points
        self.patch_embed = PatchEmbed(in_channels, dim, stride)
        self.offset_predictor = nn.Linear(dim, 4, bias=False)
        self.init_offsets()
        # Initial boxes extend by tanh(log(sqrt(5 / 3))) = 1 / 4 of a patch to each side (official implementation).
        self.wh_bias = nn.Parameter(torch.full((2,), math.log(math.sqrt(5 / 3))))
        self.output_proj = nn.Linear(in_channels * points**2, dim)
        self.norm = nn.LayerNorm(dim)

    def init_offsets(self) -> None:
        """Set the weight of the offsets to zero: training starts from undeformed patches."""
        nn.init.zeros_(self.offset_predictor.weight)

    def boxes(self, x: Tensor) -> Tensor:
        """Return boxes (B, 4, H', W'), corners x0, y0, x1, y1 in [0, 1], for (B, in_channels, H, W)."""
        x, hw = self.patch_embed(x)
        # Half-precision offsets lose pixels.
        offsets = call_in_float(self.offset_predictor, F.gelu(x.to(coordinate_dtype(x))))
        return decode_boxes(tokens_to_map(offsets, hw), self.wh_bias)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens (B, H' * W', dim) and (H', W'), with H' = ceil(H / stride), for (B, in_channels, H, W)."""
        x = pad_to_multiple(x, self.patch_embed.stride)
        boxes = self.boxes(x)
        layer = self.output_proj
        if is_plain(layer) and layer.bias is not None:  # one op, which need not keep the samples for backward
            # Official weights are ordered by location, x-major, then channel; the op takes (dim, channel, y, x).
            weight = layer.weight.unflatten(1, (self.points, self.points, -1)).permute(0, 3, 2, 1)
            tokens = map_to_tokens(deformable_patch_projection(x, boxes, weight, layer.bias))
        else:
            tokens = layer(deformable_patch_samples(x, boxes, self.points))
        return self.norm(tokens), (boxes.shape[-2], boxes.shape[-1])


_POINTS = dict(points=(0, 3, 3, 3))


@MODELS.register_module()
class DPT(PVT):
    """Deformable Patch-based Transformer, with the parameters, outputs and gradients of the official implementation.

    It differs from :class:`PVT` in the patch embeddings of stages 2 to 4, and has the same arguments. ``arch`` is
    ``tiny``, ``small``, ``medium``, ``test`` (small, for tests and demos), or a dict. ``points`` of a row of
    ``arch_zoo`` is the number of sampling locations along each axis of a patch; 0 is PVT's plain patch embedding.
    """

    family = 'dpt'
    arch_zoo: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {**row, **_POINTS} for name, row in PVT.arch_zoo.items() if name != 'large'
    }

    def _build_patch_embed(self, i: int, in_channels: int, dim: int, stride: int) -> nn.Module:
        points = self.arch['points'][i]
        if points < 0:
            raise ValueError(f'DPT: points must be 0 (plain patches) or more, got {self.arch["points"]}')
        if points == 0:
            return super()._build_patch_embed(i, in_channels, dim, stride)
        return DeformablePatchEmbed(in_channels, dim, stride, points)

    def _init_layer(self, module: nn.Module) -> None:
        super()._init_layer(module)
        if isinstance(module, DeformablePatchEmbed):  # after its layers
            module.init_offsets()
