"""Small backbones of every kind, fast enough for tests of everything that the backbones share.

The published sizes are tested by backbones/test_agreement.py.
"""

from typing import Any

from mmengine.registry import MODELS

from deformable_vit.backbones import PyramidBackbone

SMALL_DIMS = (64, 96, 128, 160)
SMALL_BACKBONES: dict[str, dict[str, Any]] = {
    'PVT': dict(type='PVT', arch='test', pretrain_img_size=64),
    'PVTv2': dict(type='PVTv2', arch='test'),
    'PVTv2-li': dict(type='PVTv2', arch=dict(like='test', linear=True)),
    'DPT': dict(type='DPT', arch='test', pretrain_img_size=64),
    'DAT': dict(type='DAT', arch='test', pretrain_img_size=64),
    'DAT++': dict(type='DAT', arch=dict(like='test++', layer_scale=1e-2), pretrain_img_size=64),
    'DAT without bias': dict(
        type='DAT',
        arch=dict(like='test', blocks=('D', 'DL', 'DS', 'D'), groups=(1, 1, 1, 1), position_bias=(False,) * 4),
        window_size=4,
    ),
}


def build_small(name: str, **kwargs: Any) -> PyramidBackbone:
    """Build one of :data:`SMALL_BACKBONES`, with more or other constructor arguments."""
    return MODELS.build(dict(SMALL_BACKBONES[name], **kwargs))
