_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_1x_adamw-wd1e-4.py',
    'mmdet::_base_/default_runtime.py',
]

# twice RetinaNet's learning rate
optim_wrapper = dict(optimizer=dict(lr=2e-4))
