"""Pyramid Vision Transformer (PVT).

Wang et al., ICCV 2021, https://arxiv.org/abs/2102.12122; official implementation: https://github.com/whai362/PVT.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from ..layers import MLP, PatchEmbed, SpatialReductionAttention, TransformerBlock
from ..ops import resize_position_embedding
from .arch import TEST_ARCH, check_arch, check_img_size, drop_path_rates
from .base import PyramidBackbone, TransformerStage

NORM_EPS = 1e-6


class PositionedStage(TransformerStage):
    """A stage with an absolute position embedding, resized to the grid of the input.

    Args:
        grid_size: (height, width) of the embedding's grid.
        num_extra: Entries before those of the grid. Official checkpoints hold one for the class token in the last
            stage, also where no class token is used; it has no effect there.
    """

    def __init__(self, *args: Any, dim: int, grid_size: tuple[int, int], num_extra: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.grid_size = grid_size
        self.num_extra = num_extra
        self.pos_embed = nn.Parameter(torch.zeros(1, num_extra + grid_size[0] * grid_size[1], dim))
        trunc_normal_(self.pos_embed, std=0.02)

    def position_embedding(self, hw: tuple[int, int]) -> Tensor:
        """Return the position embedding (1, num_extra + H * W, C) for a grid of (height, width)."""
        return resize_position_embedding(self.pos_embed, self.grid_size, hw, self.num_extra)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, hw = self.patch_embed(x)
        return x + self.position_embedding(hw)[:, self.num_extra :], hw


class ClassTokenStage(PositionedStage):
    """The last stage of a classifier: a class token passes through the blocks and is the output."""

    def __init__(self, *args: Any, dim: int, **kwargs: Any) -> None:
        super().__init__(*args, dim=dim, num_extra=1, **kwargs)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        trunc_normal_(self.cls_token, std=0.02)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x, hw = self.patch_embed(x)
        return torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.position_embedding(hw), hw

    def format_output(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Return the class token (B, C) of the tokens (B, 1 + N, C)."""
        return x[:, 0]


_COMMON = dict(embed_dims=(64, 128, 320, 512), num_heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4), sr_ratios=(8, 4, 2, 1))


@MODELS.register_module()
class PVT(PyramidBackbone):
    """Pyramid Vision Transformer, with the parameters, outputs and gradients of the official implementation.

    Args:
        arch: ``tiny``, ``small``, ``medium``, ``large``, ``test`` (small, for tests and demos), or a dict with the keys
            of a row of ``arch_zoo``, or with ``like``, a name, and what differs.
        in_channels: Number of image channels.
        pretrain_img_size: Size, or (height, width), in pixels of the images that the position embeddings are trained
            on. They are resized to other inputs.
        out_type: ``featmap`` returns the feature maps of ``out_indices``. ``cls_token`` adds the class token and the
            final norm, and returns the token (B, C) for the last stage, as mmpretrain's heads expect.
        out_indices: Stages whose outputs are returned.
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

    family = 'pvt'
    arch_zoo: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        'tiny': dict(_COMMON, depths=(2, 2, 2, 2)),
        'small': dict(_COMMON, depths=(3, 4, 6, 3)),
        'medium': dict(_COMMON, depths=(3, 4, 18, 3)),
        'large': dict(_COMMON, depths=(3, 8, 27, 3)),
        'test': dict(TEST_ARCH, sr_ratios=(4, 2, 1, 1)),
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'tiny',
        in_channels: int = 3,
        pretrain_img_size: int | tuple[int, int] = 224,
        out_type: str = 'featmap',
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
        name = type(self).__name__
        arch = check_arch(name, arch, self.arch_zoo)
        super().__init__(arch, out_indices, frozen_stages, init_cfg, output_stride, checkpoint)
        if out_type not in ('featmap', 'cls_token'):
            raise ValueError(f"out_type must be 'featmap' or 'cls_token', got {out_type!r}")
        if out_type == 'cls_token' and arch['sr_ratios'][-1] != 1:
            raise ValueError(f'a class token needs sr_ratios[3] == 1, as it has no position, got {arch["sr_ratios"]}')
        if out_type == 'cls_token' and output_stride != 32:
            raise ValueError(f'a class token has no stride: output_stride must be 32, got {output_stride}')

        rates = drop_path_rates(drop_path_rate, arch['depths'])
        grid, channels = check_img_size(name, pretrain_img_size), in_channels
        for i, dim in enumerate(arch['embed_dims']):
            last = i == self.num_stages - 1
            stride = 4 if i == 0 else 2
            grid = math.ceil(grid[0] / stride), math.ceil(grid[1] / stride)
            stage = dict(
                patch_embed=self._build_patch_embed(i, channels, dim, stride),
                blocks=[self._build_block(i, dim, rate, recompute_activation) for rate in rates[i]],
                with_cp=with_cp,
                dim=dim,
                grid_size=grid,
            )
            if last and out_type == 'cls_token':
                self.stages.append(ClassTokenStage(norm=nn.LayerNorm(dim, eps=NORM_EPS), **stage))
            else:
                self.stages.append(PositionedStage(num_extra=int(last), **stage))
            channels = dim
        self.apply(self._init_layer)
        self.freeze()
        self.load_pretrained()

    def _build_patch_embed(self, i: int, in_channels: int, dim: int, stride: int) -> nn.Module:
        return PatchEmbed(in_channels, dim, stride)

    def _build_block(self, i: int, dim: int, drop_path: float, recompute_activation: bool) -> nn.Module:
        attn = SpatialReductionAttention(dim, self.arch['num_heads'][i], self.arch['sr_ratios'][i])
        mlp = MLP(dim, int(dim * self.arch['mlp_ratios'][i]), recompute_activation)
        return TransformerBlock(dim, attn, mlp, drop_path, NORM_EPS)

    def _init_layer(self, module: nn.Module) -> None:
        """Initialize a layer as the official implementation does; convolutions and norms keep torch's defaults."""
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def num_extra_tokens(self) -> dict[str, int]:
        return {
            f'stages.{i}.pos_embed': stage.num_extra
            for i, stage in enumerate(self.stages)
            if isinstance(stage, PositionedStage)
        }
