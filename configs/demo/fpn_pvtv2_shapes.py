_base_ = [
    '../_base_/models/small_semantic_fpn.py',
    '../_base_/datasets/shapes_semantic.py',
    '../_base_/schedules/shapes_semantic.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='PVTv2', arch='test'),
    neck=dict(in_channels=[64, 96, 128, 160]),
)
