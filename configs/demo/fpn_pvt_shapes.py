_base_ = [
    '../_base_/backbones/small.py',
    '../_base_/models/small_semantic_fpn_wide.py',
    '../_base_/datasets/shapes_semantic.py',
    '../_base_/schedules/shapes_semantic_long.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    # Heads of 16 channels: more ways at a time to look around a pixel.
    backbone=dict(_base_.small_pvt, arch=dict(_base_.small_pvt.arch, num_heads=(4, 6, 8, 10))),
    neck=dict(in_channels=_base_.small_channels),
)
