_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms.py',
    '../_base_/schedules/coco_3x_adamw-wd1e-4.py',
    'mmdet::_base_/default_runtime.py',
]
