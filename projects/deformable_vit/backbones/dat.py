"""Deformable Attention Transformer, the first (DAT) and the second version (DAT++).

Xia et al., CVPR 2022, https://arxiv.org/abs/2201.00520, and 2023, https://arxiv.org/abs/2309.01430; the authors' code
is at https://github.com/LeapLabTHU/DAT, and beside it DAT-Detection and DAT-Segmentation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mmengine.registry import MODELS
from torch import Tensor, nn

from ..layers import (
    MLP,
    ConvStem,
    DeformableAttention,
    LocalPerceptionBlock,
    NeighborhoodAttention,
    OverlapPatchEmbed,
    PatchEmbed,
    ResidualConvMLP,
    WindowAttention,
)
from ..ops import map_to_tokens, tokens_to_map
from ..ops.coordinates import CONVENTIONS
from .base import PyramidBackbone, check_arch, check_img_size, drop_path_rates
from .stage import TransformerStage

# Groups and strides count in stages with a deformable block; those of stages 1 and 2 are of the paper's ablation.
_DAT = dict(
    embed_dims=(96, 192, 384, 768),
    num_heads=(3, 6, 12, 24),
    blocks=('LS', 'LS', 'LD', 'LD'),
    groups=(1, 2, 3, 6),
    strides=(4, 2, 1, 1),
    offset_kernels=(9, 7, 5, 3),
    offset_ranges=(2, 2, 2, 2),
    position_bias=(True, True, True, True),
    coordinates='centers',
    mlp_ratios=(4, 4, 4, 4),
    conv_mlp=False,
    conv_stem=False,
    lpu=False,
    layer_scale=0.0,
)
_DAT_PP = dict(
    _DAT,
    blocks=('ND', 'ND', 'ND', 'DD'),
    strides=(8, 4, 2, 1),
    offset_ranges=(-1, -1, -1, -1),
    coordinates='corners',
    conv_mlp=True,
    conv_stem=True,
    lpu=True,
)
_BASE = dict(embed_dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32))

NORM_EPS = 1e-5


@MODELS.register_module()
class DAT(PyramidBackbone):
    """Deformable Attention Transformer, equal to the authors' code in parameters, outputs and gradients.

    For classification follow it with mmpretrain's ``GlobalAveragePooling`` and ``LinearClsHead``.

    Args:
        arch: ``tiny``, ``small``, ``base`` (CVPR 2022), ``tiny++``, ``small++``, ``base++`` (2023), or a dict with the
            keys of ``arch_zoo``'s rows, or with ``like``, a name, and what differs. ``blocks`` says for each stage
            which attention its blocks have, a pattern that is repeated to the stage's depth: L within windows, S within
            shifted windows, N within a neighbourhood, D deformable. ``groups``, ``strides``, ``offset_kernels``,
            ``offset_ranges`` (-1: anywhere on the map) and ``position_bias`` concern D. See
            :class:`deformable_vit.layers.DeformableAttention`.
        in_channels: Channels of the pictures.
        pretrain_img_size: Edge (or height and width) in pixels of the pictures that the model is, or was, trained on
            first: it gives the tables of relative position biases of deformable attention their size.
        window_size: Edge of the windows of L and S; the authors' DAT-B for 384 x 384 has 12.
        kernel_size: Edge of the neighbourhoods of N.
        out_indices: Stages whose maps are returned, each through a norm of its own. Name only those that are used: the
            norm of another one gets no gradient, which stops distributed training (under a neck with ``start_level=1``
            name 1, 2, 3 here and let the neck start at level 0).
        drop_path_rate: Stochastic depth at the last block, growing linearly from 0 at the first.
        with_cp: Gradient checkpointing of each block: less memory, one more forward.
        frozen_stages: -1: none; 0: the first patch embedding; n: stages 1 to n whole, with their norms.
        norm_eval: For the hosts' sake; DAT has no batch normalisation.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` takes a file of the authors or of this project.

    Raises:
        ValueError: On an unknown arch or one that does not add up, and on pictures below 32 x 32.
    """

    arch_zoo: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        'tiny': dict(_DAT, depths=(2, 2, 6, 2)),
        'small': dict(_DAT, depths=(2, 2, 18, 2)),
        'base': dict(_DAT, **_BASE, depths=(2, 2, 18, 2), groups=(1, 2, 4, 8)),
        'tiny++': dict(
            _DAT_PP,
            embed_dims=(64, 128, 256, 512),
            num_heads=(2, 4, 8, 16),
            depths=(2, 4, 18, 2),
            groups=(1, 2, 4, 8),
        ),
        'small++': dict(_DAT_PP, depths=(2, 4, 18, 2)),
        'base++': dict(_DAT_PP, **_BASE, depths=(2, 4, 18, 2), groups=(2, 4, 8, 16)),
    }

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
        norm_eval: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        self.arch = arch = check_arch(type(self).__name__, arch, self.arch_zoo)
        _check_blocks(arch)
        if window_size < 2:
            raise ValueError(f'DAT: window_size must be at least 2, got {window_size}')
        pretrain_img_size = check_img_size('DAT', pretrain_img_size)
        self.window_size = window_size
        self.kernel_size = kernel_size

        rates = drop_path_rates(drop_path_rate, arch['depths'])
        grid, channels = pretrain_img_size, in_channels
        for i, dim in enumerate(arch['embed_dims']):
            grid = tuple(math.ceil(edge / (4 if i == 0 else 2)) for edge in grid)
            kinds = arch['blocks'][i] * (arch['depths'][i] // len(arch['blocks'][i]))
            self.stages.append(
                TransformerStage(
                    self._build_patch_embed(i, channels, dim),
                    [self._build_block(i, kind, grid, rate) for kind, rate in zip(kinds, rates[i], strict=True)],
                    with_cp=with_cp,
                )
            )
            channels = dim
        # Linear layers and convolutions begin as torch makes them: the authors' own initialisation asks parameters, not
        # modules, whether they are linear layers, so that it never did anything.
        self.norms = nn.ModuleDict({str(i): nn.LayerNorm(arch['embed_dims'][i], NORM_EPS) for i in self.out_indices})
        self.freeze()

    def _build_patch_embed(self, i: int, in_channels: int, dim: int) -> nn.Module:
        if i > 0:
            return (OverlapPatchEmbed if self.arch['conv_stem'] else PatchEmbed)(in_channels, dim, 2, bias=False)
        return ConvStem(in_channels, dim) if self.arch['conv_stem'] else PatchEmbed(in_channels, dim, 4)

    def _build_block(self, i: int, kind: str, grid: tuple[int, int], drop_path: float) -> nn.Module:
        arch, dim = self.arch, self.arch['embed_dims'][i]
        mlp = (ResidualConvMLP if arch['conv_mlp'] else MLP)(dim, int(dim * arch['mlp_ratios'][i]))
        attn = self._build_attention(i, kind, grid)
        return LocalPerceptionBlock(dim, attn, mlp, drop_path, NORM_EPS, arch['lpu'], arch['layer_scale'])

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
            coordinates=arch['coordinates'],
            table_size=(2 * grid[0] - 1, 2 * grid[1] - 1) if arch['position_bias'][i] else None,
        )

    def read_out(self, i: int, x: Tensor) -> Tensor:
        # Contiguous for the same reason as a stage's own output.
        return tokens_to_map(self.norms[str(i)](map_to_tokens(x)), tuple(x.shape[-2:])).contiguous()

    def frozen_modules(self) -> list[nn.Module]:
        norms = [norm for i, norm in self.norms.items() if int(i) < self.frozen_stages]
        return super().frozen_modules() + norms


def _check_blocks(arch: Mapping[str, Any]) -> None:
    if arch['coordinates'] not in CONVENTIONS:
        raise ValueError(f'DAT: coordinates must be one of {CONVENTIONS}, got {arch["coordinates"]!r}')
    for i, (pattern, depth) in enumerate(zip(arch['blocks'], arch['depths'], strict=True)):
        stage = f'DAT, stage {i + 1}'
        if not pattern or set(pattern) - set('LSDN'):
            raise ValueError(f'{stage}: blocks is a string of L, S, D and N, got {pattern!r}')
        if depth % len(pattern):
            raise ValueError(
                f'{stage}: the pattern {pattern!r} of {len(pattern)} blocks does not add up to a depth of {depth}; '
                'change blocks or depths'
            )
        heads, groups = arch['num_heads'][i], arch['groups'][i]
        if 'D' in pattern and (groups < 1 or heads % groups):
            raise ValueError(f'{stage}: {groups} groups do not divide {heads} heads; change groups or num_heads')
        offset_range = arch['offset_ranges'][i]
        if 'D' in pattern and offset_range < 0 and offset_range != -1:
            raise ValueError(f'{stage}: offset_ranges must be 0 or more, or -1 for the whole map, got {offset_range}')
        kernel, stride = arch['offset_kernels'][i], arch['strides'][i]
        if 'D' in pattern and (stride < 1 or (kernel % 2 == 0 and kernel != stride)):
            raise ValueError(
                f'{stage}: strides must be 1 or more, and offset_kernels odd or equal to the stride, '
                f'got stride {stride} and kernel {kernel}'
            )
