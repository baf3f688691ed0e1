"""The arch table of DAT and DAT++, and its validation."""

from collections.abc import Mapping
from typing import Any

from ...ops import CONVENTIONS
from ..arch import TEST_ARCH

# groups, strides, offset_kernels and offset_ranges apply to deformable blocks; those of stages 1 and 2 come from the
# ablation study of the paper (DAT).
_DAT: dict[str, Any] = dict(
    embed_dims=(96, 192, 384, 768),
    num_heads=(3, 6, 12, 24),
    blocks=('LS', 'LS', 'LD', 'LD'),
    groups=(1, 2, 3, 6),
    strides=(4, 2, 1, 1),
    offset_kernels=(9, 7, 5, 3),
    offset_ranges=(2, 2, 2, 2),
    position_bias=(True, True, True, True),
    convention='centers',
    mlp_ratios=(4, 4, 4, 4),
    conv_mlp=False,
    conv_stem=False,
    lpu=False,
    layer_scale=0.0,
)
# DAT+: the attention of DAT++ without its convolutions (configs/dat_p.yaml of the official code).
_DAT_P = dict(
    _DAT,
    blocks=('ND', 'ND', 'ND', 'DD'),
    strides=(8, 4, 2, 1),
    offset_ranges=(-1, -1, -1, -1),
    convention='corners',
)
_DAT_PP = dict(_DAT_P, conv_mlp=True, conv_stem=True, lpu=True)
_TINY: dict[str, Any] = dict(
    embed_dims=(64, 128, 256, 512), num_heads=(2, 4, 8, 16), depths=(2, 4, 18, 2), groups=(1, 2, 4, 8)
)
_TEST: dict[str, Any] = dict(TEST_ARCH, groups=(1, 1, 2, 5), strides=(4, 2, 1, 1))
_BASE: dict[str, Any] = dict(embed_dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32))

ARCH_ZOO: Mapping[str, Mapping[str, Any]] = {
    'tiny': dict(_DAT, depths=(2, 2, 6, 2)),
    'small': dict(_DAT, depths=(2, 2, 18, 2)),
    'base': {**_DAT, **_BASE, 'depths': (2, 2, 18, 2), 'groups': (1, 2, 4, 8)},
    'tiny+': {**_DAT_P, **_TINY},
    'tiny++': {**_DAT_PP, **_TINY},
    'small++': dict(_DAT_PP, depths=(2, 4, 18, 2)),
    'base++': {**_DAT_PP, **_BASE, 'depths': (2, 4, 18, 2), 'groups': (2, 4, 8, 16)},
    'test': {**_DAT, **_TEST, 'blocks': ('L', 'LS', 'LD', 'D')},
    'test++': {**_DAT_PP, **_TEST, 'blocks': ('N', 'ND', 'ND', 'D')},
}


def check_blocks(arch: Mapping[str, Any]) -> None:
    """Validate the entries of a row that belong to attention.

    Raises:
        ValueError: A value is out of range, or values contradict each other.
    """
    if arch['convention'] not in CONVENTIONS:
        raise ValueError(f'DAT: convention must be one of {CONVENTIONS}, got {arch["convention"]!r}')
    for i, (pattern, depth) in enumerate(zip(arch['blocks'], arch['depths'], strict=True)):
        stage = f'DAT, stage {i + 1}'
        if not pattern or set(pattern) - set('LSDN'):
            raise ValueError(f'{stage}: blocks must be a string of L, S, D and N, got {pattern!r}')
        if depth % len(pattern):
            raise ValueError(
                f'{stage}: the pattern {pattern!r} of {len(pattern)} blocks does not divide the depth {depth}; '
                'change blocks or depths'
            )
        if 'D' in pattern:
            _check_deformable(arch, i, stage)


def _check_deformable(arch: Mapping[str, Any], i: int, stage: str) -> None:
    heads, groups, offset_range = arch['num_heads'][i], arch['groups'][i], arch['offset_ranges'][i]
    if groups < 1 or heads % groups:
        raise ValueError(f'{stage}: {groups} groups do not divide {heads} heads; change groups or num_heads')
    if offset_range < 0 and offset_range != -1:
        raise ValueError(f'{stage}: offset_ranges must be 0 or more, or -1 for unbounded offsets, got {offset_range}')
    kernel, stride = arch['offset_kernels'][i], arch['strides'][i]
    if stride < 1 or (kernel % 2 == 0 and kernel != stride):
        raise ValueError(
            f'{stage}: strides must be 1 or more, and offset_kernels odd or equal to the stride, '
            f'got stride {stride} and kernel {kernel}'
        )
