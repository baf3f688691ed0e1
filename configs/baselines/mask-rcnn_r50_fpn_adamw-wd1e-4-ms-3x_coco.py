_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/coco_3x_adamw-wd1e-4.py',
    'mmdet::_base_/default_runtime.py',
]

# twice RetinaNet's learning rate
optim_wrapper = dict(optimizer=dict(lr=2e-4))
