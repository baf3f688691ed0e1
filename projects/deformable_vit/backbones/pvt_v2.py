"""PVT v2: overlapping patches, a convolution in the perceptron, and optionally attention of linear cost.

Wang et al., CVMJ 2022, https://arxiv.org/abs/2106.13797; the authors' code is at https://github.com/whai362/PVT.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mmengine.registry import MODELS
from torch import nn
from torch.nn.init import normal_, trunc_normal_, zeros_

from ..layers import (
    ConvMLP,
    LinearConvMLP,
    LinearSpatialReductionAttention,
    OverlapPatchEmbed,
    SpatialReductionAttention,
    TransformerBlock,
)
from .base import PyramidBackbone, check_arch, drop_path_rates
from .stage import TransformerStage

_COMMON = dict(
    embed_dims=(64, 128, 320, 512),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    linear=False,
)


@MODELS.register_module()
class PVTv2(PyramidBackbone):
    """PVT v2, equal to the authors' code in parameters, outputs and gradients.

    There are no position embeddings: the zero padding of its convolutions tells positions apart. For classification
    follow it with mmpretrain's ``GlobalAveragePooling`` and ``LinearClsHead``.

    Args:
        arch: ``b0``, ``b1``, ``b2``, ``b2-li``, ``b3``, ``b4``, ``b5``, or a dict with the keys of ``arch_zoo``'s rows,
            or with ``like``, a name, and what differs.
        in_channels: Channels of the pictures.
        out_indices: Stages whose maps are returned.
        drop_path_rate: Stochastic depth at the last block, growing linearly from 0 at the first.
        with_cp: Gradient checkpointing of each block: less memory, one more forward.
        frozen_stages: -1: none; 0: the first patch embedding; n: stages 1 to n whole, too.
        norm_eval: For the hosts' sake; PVT v2 has no batch normalisation.
        pretrain_img_size: For the sake of one signature; nothing in PVT v2 depends on it.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` takes a file of the authors or of this project.

    Raises:
        ValueError: On an unknown arch or one that does not add up, and on pictures below 32 x 32.
    """

    arch_zoo: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        'b0': dict(_COMMON, embed_dims=(32, 64, 160, 256), depths=(2, 2, 2, 2)),
        'b1': dict(_COMMON, depths=(2, 2, 2, 2)),
        'b2': dict(_COMMON, depths=(3, 4, 6, 3)),
        'b2-li': dict(_COMMON, depths=(3, 4, 6, 3), linear=True),
        'b3': dict(_COMMON, depths=(3, 4, 18, 3)),
        'b4': dict(_COMMON, depths=(3, 8, 27, 3)),
        'b5': dict(_COMMON, depths=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'b0',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        pretrain_img_size: int | tuple[int, int] = 224,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        self.arch = arch = check_arch(type(self).__name__, arch, self.arch_zoo)

        rates = drop_path_rates(drop_path_rate, arch['depths'])
        channels = in_channels
        for i, dim in enumerate(arch['embed_dims']):
            self.stages.append(
                TransformerStage(
                    OverlapPatchEmbed(channels, dim, stride=4 if i == 0 else 2),
                    [self._build_block(i, dim, rate) for rate in rates[i]],
                    norm=nn.LayerNorm(dim, eps=1e-6),
                    with_cp=with_cp,
                )
            )
            channels = dim
        self.apply(_init_layer)
        self.freeze()

    def _build_block(self, i: int, dim: int, drop_path: float) -> nn.Module:
        heads, sr_ratio = self.arch['num_heads'][i], self.arch['sr_ratios'][i]
        hidden = int(dim * self.arch['mlp_ratios'][i])
        if self.arch['linear']:
            attn, mlp = LinearSpatialReductionAttention(dim, heads), LinearConvMLP(dim, hidden)
        else:
            attn, mlp = SpatialReductionAttention(dim, heads, sr_ratio), ConvMLP(dim, hidden)
        return TransformerBlock(dim, attn, mlp, drop_path)


def _init_layer(module: nn.Module) -> None:
    """The authors' initialisation: truncated normal for linear layers, normal by fan-out for convolutions."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        normal_(module.weight, std=math.sqrt(2 / fan_out))
        zeros_(module.bias)
