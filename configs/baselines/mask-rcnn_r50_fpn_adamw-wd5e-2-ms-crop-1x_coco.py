# The same augmentation for 12 epochs as for 36, as in Swin Transformer's own configs (not in mmdet's).
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_1x_adamw-wd5e-2.py',
    'mmdet::_base_/default_runtime.py',
]
