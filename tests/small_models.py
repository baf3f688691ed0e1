"""Small backbones of every kind, fast enough for tests of everything that the backbones share.

The published sizes are tested by backbones/test_agreement.py.
"""

from typing import Any

from mmengine.registry import MODELS

from deformable_vit.backbones import PyramidBackbone

SMALL_DIMS = (16, 32, 40, 64)
_COMMON = dict(embed_dims=SMALL_DIMS, depths=(1, 2, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2))
_PVT = dict(_COMMON, sr_ratios=(8, 4, 2, 1))
SMALL_BACKBONES: dict[str, dict[str, Any]] = {
    'PVT': dict(type='PVT', arch=_PVT, pretrain_img_size=64),
    'PVTv2': dict(type='PVTv2', arch=dict(_PVT, linear=False)),
    'PVTv2-li': dict(type='PVTv2', arch=dict(_PVT, linear=True)),
    'DPT': dict(type='DPT', arch=dict(_PVT, points=(0, 3, 3, 3)), pretrain_img_size=64),
    'DAT': dict(
        type='DAT',
        arch=dict(_COMMON, like='tiny', blocks=('S', 'LD', 'D', 'D'), groups=(1, 2, 5, 4), strides=(4, 2, 1, 1)),
        pretrain_img_size=64,
    ),
    'DAT++': dict(
        type='DAT',
        arch=dict(_COMMON, like='tiny++', blocks=('N', 'ND', 'D', 'D'), groups=(1, 2, 5, 4), layer_scale=1e-2),
        pretrain_img_size=64,
    ),
    'DAT without bias': dict(
        type='DAT',
        arch=dict(_COMMON, like='tiny', blocks=('D', 'DL', 'D', 'D'), groups=(1, 1, 1, 1), position_bias=(False,) * 4),
        window_size=4,
    ),
}


def build_small(name: str, **kwargs: Any) -> PyramidBackbone:
    """Build one of :data:`SMALL_BACKBONES`, with more or other constructor arguments."""
    return MODELS.build(dict(SMALL_BACKBONES[name], **kwargs))
