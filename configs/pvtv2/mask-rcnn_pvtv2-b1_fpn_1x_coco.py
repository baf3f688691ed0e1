_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_1x_adamw-wd1e-4.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVTv2',
        arch='b1',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='official://pvtv2-b1_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
# twice RetinaNet's learning rate
optim_wrapper = dict(optimizer=dict(lr=2e-4))
