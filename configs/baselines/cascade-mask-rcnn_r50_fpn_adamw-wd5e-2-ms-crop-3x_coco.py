_base_ = [
    '../_base_/models/cascade-mask-rcnn_4conv1fc_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_3x_adamw-wd5e-2.py',
    'mmdet::_base_/default_runtime.py',
]
