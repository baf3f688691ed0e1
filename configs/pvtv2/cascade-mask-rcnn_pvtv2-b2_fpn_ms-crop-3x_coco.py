# The official training is in half precision: add --amp.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_4conv1fc_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_3x_adamw-wd5e-2.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVTv2',
        arch='b2',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='official://pvtv2-b2_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
