"""PVT v2: overlapping patch embeddings, a convolution in the MLP, and optional attention of linear complexity.

Wang et al., CVMJ 2022, https://arxiv.org/abs/2106.13797; official implementation: https://github.com/whai362/PVT.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.init import normal_, trunc_normal_, zeros_

from ..layers import ConvMLP, OverlapPatchEmbed, SpatialReductionAttention, TransformerBlock
from ..ops import adaptive_avg_pool2d, map_to_tokens, tokens_to_map
from .arch import TEST_ARCH, check_arch, drop_path_rates
from .base import PyramidBackbone, TransformerStage

NORM_EPS = 1e-6


class LinearSpatialReductionAttention(SpatialReductionAttention):
    """Attention to 7 x 7 pooled keys for any input size: linear complexity (PVT v2, section 3.1).

    All stages pool, also the last one; there is no ``sr_ratio``.
    """

    pool_size = 7

    def _build_reduction(self, dim: int) -> None:
        self.sr = nn.Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim)

    def reduce(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Return pooled tokens (B, 49, C) for tokens (B, N, C)."""
        pooled = adaptive_avg_pool2d(tokens_to_map(x, hw), self.pool_size)
        return F.gelu(self.norm(map_to_tokens(self.sr(pooled))))


class LinearConvMLP(ConvMLP):
    """The MLP that goes with linear attention: ReLU before the convolution."""

    def mix(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        return super().mix(F.relu(x), hw)


_COMMON = dict(
    embed_dims=(64, 128, 320, 512),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    linear=False,
)


@MODELS.register_module()
class PVTv2(PyramidBackbone):
    """PVT v2, with the parameters, outputs and gradients of the official implementation.

    It has no position embeddings: the zero padding of its convolutions encodes positions. For classification, use
    mmpretrain's ``GlobalAveragePooling`` and ``LinearClsHead``.

    Args:
        arch: ``b0``, ``b1``, ``b2``, ``b2-li``, ``b3``, ``b4``, ``b5``, ``test`` (small, for tests and demos), or a
            dict with the keys of a row of ``arch_zoo``, or with ``like``, a name, and what differs.
        in_channels: Number of image channels.
        out_indices: Stages whose feature maps are returned.
        drop_path_rate: Stochastic depth rate of the last block, growing linearly from 0 at the first.
        with_cp: Recompute each block in backward: less memory, one more forward.
        frozen_stages: -1: none; 0: the first patch embedding; n: also stages 1 to n.
        recompute_activation: Recompute the MLPs' activations in backward; see :class:`deformable_vit.layers.MLP`.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` loads an official or converted checkpoint.
        output_stride: Stride of the last stage: 32, or 16 as for DC5 in DETR; see
            :meth:`PyramidBackbone.without_stride`.
        pretrained: True loads the official ImageNet weights of ``arch``, a string those of a name, path or URL; at once
            and again in ``init_weights``.

    Raises:
        ValueError: ``arch`` is unknown or inconsistent, or another argument is out of range.
    """

    family = 'pvtv2'
    arch_zoo: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        'b0': dict(_COMMON, embed_dims=(32, 64, 160, 256), depths=(2, 2, 2, 2)),
        'b1': dict(_COMMON, depths=(2, 2, 2, 2)),
        'b2': dict(_COMMON, depths=(3, 4, 6, 3)),
        'b2-li': dict(_COMMON, depths=(3, 4, 6, 3), linear=True),
        'b3': dict(_COMMON, depths=(3, 4, 18, 3)),
        'b4': dict(_COMMON, depths=(3, 8, 27, 3)),
        'b5': dict(_COMMON, depths=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
        'test': dict(TEST_ARCH, sr_ratios=(4, 2, 1, 1), linear=False),
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'b0',
        in_channels: int = 3,
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

        rates = drop_path_rates(drop_path_rate, arch['depths'])
        channels = in_channels
        for i, dim in enumerate(arch['embed_dims']):
            self.stages.append(
                TransformerStage(
                    OverlapPatchEmbed(channels, dim, stride=4 if i == 0 else 2),
                    [self._build_block(i, dim, rate, recompute_activation) for rate in rates[i]],
                    norm=nn.LayerNorm(dim, eps=NORM_EPS),
                    with_cp=with_cp,
                )
            )
            channels = dim
        self.apply(_init_layer)
        self.freeze()
        self.load_pretrained()

    def _build_block(self, i: int, dim: int, drop_path: float, recompute_activation: bool) -> nn.Module:
        heads, sr_ratio = self.arch['num_heads'][i], self.arch['sr_ratios'][i]
        hidden = int(dim * self.arch['mlp_ratios'][i])
        attn: nn.Module
        mlp: nn.Module
        if self.arch['linear']:
            attn, mlp = LinearSpatialReductionAttention(dim, heads), LinearConvMLP(dim, hidden, recompute_activation)
        else:
            attn, mlp = SpatialReductionAttention(dim, heads, sr_ratio), ConvMLP(dim, hidden, recompute_activation)
        return TransformerBlock(dim, attn, mlp, drop_path, NORM_EPS)


def _init_layer(module: nn.Module) -> None:
    """Initialize as the official implementation does: truncated normal for linear layers, fan-out for convolutions."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            zeros_(module.bias)
