_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_3x_adamw-wd5e-2.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny',
        drop_path_rate=0.2,
        # configs/dat/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dat-tiny_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
