_base_ = [
    '../_base_/models/small_cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/shapes_detection.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='DAT', arch='test', pretrain_img_size=128),
    neck=dict(in_channels=[64, 96, 128, 160]),
)
