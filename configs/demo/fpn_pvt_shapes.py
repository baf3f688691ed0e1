_base_ = [
    '../_base_/models/small_semantic_fpn_wide.py',
    '../_base_/datasets/shapes_semantic.py',
    '../_base_/schedules/shapes_semantic_long.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    # 16 channels per head: more attention patterns around a pixel
    backbone=dict(_delete_=True, type='PVT', arch=dict(like='test', num_heads=(4, 6, 8, 10)), pretrain_img_size=128),
    neck=dict(in_channels=[64, 96, 128, 160]),
)
