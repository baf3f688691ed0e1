"""Deformable Attention Transformer, both versions: DAT and DAT++.

Xia et al., CVPR 2022, https://arxiv.org/abs/2201.00520, and 2023, https://arxiv.org/abs/2309.01430; official
implementation: https://github.com/LeapLabTHU/DAT, with DAT-Detection and DAT-Segmentation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from ...layers import MLP, ConvMLP, LayerScale, OverlapPatchEmbed, PatchEmbed, TransformerBlock, call_in_float
from ...ops import (
    at_least,
    deformable_attention,
    deformable_sampling,
    dense_attention,
    key_grid,
    key_spacing,
    map_to_tokens,
    query_coordinates,
    tokens_to_map,
    unflatten,
)
from ..arch import check_arch, check_img_size, drop_path_rates
from ..base import PyramidBackbone, TransformerStage
from .arch import ARCH_ZOO, check_blocks
from .local_attention import NeighborhoodAttention, WindowAttention

NORM_EPS = 1e-5


class KeyOffsets(nn.Module):
    """Predict the offsets of the keys of one group: depthwise convolution, norm, GELU, projection to (y, x).

    Args:
        dim: Number of channels of a group.
        kernel_size: Kernel size of the depthwise convolution.
        stride: Queries per key along an axis.
    """

    def __init__(self, dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        # As in the official implementation, no padding where the kernels tile the feature map.
        self.tiles = kernel_size == stride
        self.kernel_size = kernel_size
        padding = 0 if self.tiles else kernel_size // 2
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, stride, padding, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to (B, H', W', 2), at least float32: half-precision offsets lose pixels."""
        if self.tiles:  # a feature map smaller than the kernel still has one key
            missing_h, missing_w = (at_least(self.kernel_size - n, 0) for n in x.shape[-2:])
            x = F.pad(x, (0, missing_w, 0, missing_h))
        return call_in_float(self.proj, F.gelu(self.norm(self.dwconv(x).permute(0, 2, 3, 1))))


class DeformableAttention(nn.Module):
    """Attention to keys and values sampled at deformed locations (DAT, section 3.2).

    All queries share the locations; each group of heads has its own.

    Args:
        dim: Number of channels.
        num_heads: Number of heads; must divide ``dim``.
        num_groups: Number of groups of heads; must divide ``num_heads``.
        stride: Pixels per key along an axis.
        offset_kernel: Kernel size of :class:`KeyOffsets`.
        offset_range: Largest offset, in half distances of keys; -1 for unbounded offsets, clamped to the feature map.
        convention: ``centers`` or ``corners``; see :mod:`deformable_vit.ops.coordinates`.
        table_size: (height, width) of the table of relative position biases; None for no bias.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_groups: int,
        stride: int = 1,
        offset_kernel: int = 5,
        offset_range: float = 2,
        convention: str = 'centers',
        table_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_groups = num_groups
        self.offset_range = offset_range
        self.convention = convention
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.offset = KeyOffsets(dim // num_groups, offset_kernel, stride)
        self.rpe_table = None if table_size is None else nn.Parameter(torch.zeros(num_heads, *table_size))
        if self.rpe_table is not None:
            trunc_normal_(self.rpe_table, std=0.01)

    def key_locations(self, q: Tensor, hw: tuple[int, int]) -> Tensor:
        """Return normalized (y, x) of the keys (B, groups, H', W', 2) for queries (B, H * W, C)."""
        groups = unflatten(tokens_to_map(q, hw), 1, (self.num_groups, -1)).flatten(0, 1)
        offsets = self.offset(groups)
        h, w = offsets.shape[1:3]
        grid = key_grid(h, w, self.convention, offsets)
        if self.offset_range >= 0:
            locations = grid + offsets.tanh() * key_spacing(h, w, self.convention, offsets) * self.offset_range
        else:
            locations = (grid + offsets).clamp(-1, 1)
        return unflatten(locations, 0, (-1, self.num_groups))

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Map (B, H * W, C) to (B, H * W, C)."""
        q = self.q(x)
        locations = self.key_locations(q, hw)
        samples = deformable_sampling(tokens_to_map(x, hw), locations)
        qkv = q, self.k(samples), self.v(samples)
        q, k, v = (unflatten(t, -1, (self.num_heads, -1)).transpose(1, 2) for t in qkv)  # (B, heads, N, d) each
        if self.rpe_table is None:
            out = dense_attention(q, k, v)
        else:
            query_y, query_x = (query_coordinates(n, self.convention, locations) for n in hw)
            out = deformable_attention(q, k, v, self.rpe_table, locations.flatten(2, 3), query_y, query_x)
        return self.proj(out.transpose(1, 2).flatten(2))


class ConvStem(nn.Module):
    """Two overlapping convolutions of stride 2 instead of one patch embedding of stride 4 (DAT++, section 4.2).

    Args:
        in_channels: Number of image channels.
        dim: Number of channels of the tokens; half as many in between.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.first = OverlapPatchEmbed(in_channels, dim // 2, stride=2)
        self.second = OverlapPatchEmbed(dim // 2, dim, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens (B, H' * W', dim) and (H', W'), with H' = ceil(H / 4), for (B, in_channels, H, W)."""
        x, hw = self.first(x)
        return self.second(tokens_to_map(F.gelu(x), hw))


class ResidualConvMLP(ConvMLP):
    """The MLP of DAT++, with a skip connection around the depthwise convolution."""

    def mix(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return x + super().mix(x, hw)


class DATBlock(TransformerBlock):
    """Pre-norm block with an optional local perception unit, and with layer scale on both branches.

    Local perception unit: CMT, CVPR 2022, https://arxiv.org/abs/2107.06263, section 3.3.

    Args:
        dim: Number of channels.
        attn: Attention, called with tokens and (height, width).
        mlp: MLP, called with tokens and (height, width).
        drop_path: Stochastic depth rate, in [0, 1).
        lpu: Add a residual depthwise convolution before attention.
        layer_scale: Initial scale of each channel of a branch; 0 for none.
    """

    def __init__(
        self, dim: int, attn: nn.Module, mlp: nn.Module, drop_path: float, lpu: bool, layer_scale: float
    ) -> None:
        super().__init__(dim, attn, mlp, drop_path, NORM_EPS)
        self.lpu = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if lpu else None
        self.scale1 = LayerScale(dim, scale=layer_scale) if layer_scale else nn.Identity()
        self.scale2 = LayerScale(dim, scale=layer_scale) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        if self.lpu is not None:
            x = x + map_to_tokens(self.lpu(tokens_to_map(x, hw)))
        x = x + self.drop_path(self.scale1(self.attn(self.norm1(x), hw)))
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x), hw)))


@MODELS.register_module()
class DAT(PyramidBackbone):
    """Deformable Attention Transformer, with the parameters, outputs and gradients of the official implementation.

    For classification, use mmpretrain's ``GlobalAveragePooling`` and ``LinearClsHead``.

    Args:
        arch: ``tiny``, ``small``, ``base`` (DAT), ``tiny+`` (DAT+), ``tiny++``, ``small++``, ``base++`` (DAT++),
            ``test``, ``test++`` (small, for tests and demos), or a dict with the keys of a row of ``arch_zoo``, or with
            ``like``, a name, and what differs. ``blocks`` has a pattern of attention types for each stage, repeated to
            its depth: L within windows, S within shifted windows, N within neighborhoods, D deformable. ``groups``,
            ``strides``, ``offset_kernels``, ``offset_ranges`` and ``position_bias`` apply to D; see
            :class:`DeformableAttention`.
        in_channels: Number of image channels.
        pretrain_img_size: Size, or (height, width), in pixels of the images that the model is pretrained on; determines
            the size of the relative position bias tables of deformable attention.
        window_size: Window size of L and S in pixels; the official DAT-B for 384 x 384 has 12.
        kernel_size: Neighborhood size of N in pixels.
        out_indices: Stages whose feature maps are returned, each with its own norm. Name only stages that are used:
            unused norms get no gradient, which stops distributed training. (Under a neck with ``start_level=1``, name
            1, 2, 3 here and set ``start_level=0``.)
        drop_path_rate: Stochastic depth rate of the last block, growing linearly from 0 at the first.
        with_cp: Recompute each block in backward: less memory, one more forward.
        frozen_stages: -1: none; 0: the first patch embedding; n: also stages 1 to n with their norms.
        recompute_activation: Recompute the MLPs' activations in backward; see :class:`deformable_vit.layers.MLP`.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` loads an official or converted checkpoint.
        output_stride: Stride of the last stage: 32, or 16 as for DC5 in DETR; see
            :meth:`PyramidBackbone.without_stride`.
        pretrained: True loads the official ImageNet weights of ``arch``, a string those of a name, path or URL; at once
            and again in ``init_weights``.

    Raises:
        ValueError: ``arch`` is unknown or inconsistent, or another argument is out of range.
    """

    family = 'dat'
    arch_zoo: ClassVar[Mapping[str, Mapping[str, Any]]] = ARCH_ZOO

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'tiny',
        in_channels: int = 3,
        pretrain_img_size: int | tuple[int, int] = 224,
        window_size: int = 7,
        kernel_size: int = 7,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        frozen_stages: int = -1,
        recompute_activation: bool = True,
        init_cfg: dict[str, Any] | None = None,
        output_stride: int = 32,
        pretrained: bool | str | None = False,
    ) -> None:
        checkpoint = self.pretrained_checkpoint(arch, pretrained)
        arch = check_arch(type(self).__name__, arch, self.arch_zoo)
        super().__init__(arch, out_indices, frozen_stages, init_cfg, output_stride, checkpoint)
        check_blocks(arch)
        if window_size < 2:
            raise ValueError(f'DAT: window_size must be at least 2, got {window_size}')
        self.window_size = window_size
        self.kernel_size = kernel_size
        self.recompute_activation = recompute_activation

        rates = drop_path_rates(drop_path_rate, arch['depths'])
        grid, channels = check_img_size('DAT', pretrain_img_size), in_channels
        for i, dim in enumerate(arch['embed_dims']):
            stride = 4 if i == 0 else 2
            grid = math.ceil(grid[0] / stride), math.ceil(grid[1] / stride)
            patch_embed = self._build_patch_embed(i, channels, dim)
            kinds = arch['blocks'][i] * (arch['depths'][i] // len(arch['blocks'][i]))
            blocks = [self._build_block(i, kind, grid, rate) for kind, rate in zip(kinds, rates[i], strict=True)]
            self.stages.append(TransformerStage(patch_embed, blocks, with_cp=with_cp))
            channels = dim
        # Linear layers and convolutions keep torch's default initialization: the official one tests parameters instead
        # of modules for being linear layers, so it has no effect.
        self.norms = nn.ModuleDict({str(i): nn.LayerNorm(arch['embed_dims'][i], NORM_EPS) for i in self.out_indices})
        self.freeze()
        self.load_pretrained()

    def _build_patch_embed(self, i: int, in_channels: int, dim: int) -> nn.Module:
        if i > 0:
            return (OverlapPatchEmbed if self.arch['conv_stem'] else PatchEmbed)(in_channels, dim, 2, bias=False)
        return ConvStem(in_channels, dim) if self.arch['conv_stem'] else PatchEmbed(in_channels, dim, 4)

    def _build_block(self, i: int, kind: str, grid: tuple[int, int], drop_path: float) -> nn.Module:
        arch, dim = self.arch, self.arch['embed_dims'][i]
        build_mlp = ResidualConvMLP if arch['conv_mlp'] else MLP
        mlp = build_mlp(dim, int(dim * arch['mlp_ratios'][i]), self.recompute_activation)
        attn = self._build_attention(i, kind, grid)
        return DATBlock(dim, attn, mlp, drop_path, arch['lpu'], arch['layer_scale'])

    def _build_attention(self, i: int, kind: str, grid: tuple[int, int]) -> nn.Module:
        arch = self.arch
        dim, heads = arch['embed_dims'][i], arch['num_heads'][i]
        if kind == 'N':
            return NeighborhoodAttention(dim, heads, self.kernel_size)
        if kind in 'LS':
            shift = math.ceil(self.window_size / 2) if kind == 'S' else 0
            return WindowAttention(dim, heads, self.window_size, shift)
        return DeformableAttention(
            dim,
            heads,
            arch['groups'][i],
            stride=arch['strides'][i],
            offset_kernel=arch['offset_kernels'][i],
            offset_range=arch['offset_ranges'][i],
            convention=arch['convention'],
            table_size=(2 * grid[0] - 1, 2 * grid[1] - 1) if arch['position_bias'][i] else None,
        )

    def normalize_output(self, i: int, x: Tensor) -> Tensor:
        """Normalize the tokens (B, N, C) that stage ``i`` returns; the next stage takes them as they are."""
        return self.norms[str(i)](x)

    def frozen_modules(self) -> list[nn.Module]:
        norms = [norm for i, norm in self.norms.items() if int(i) < self.frozen_stages]
        return super().frozen_modules() + norms
