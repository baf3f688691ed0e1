_base_ = [
    '../_base_/backbones/swin.py',
    './cascade-mask-rcnn_r50_fpn_swin-ms-3x_coco.py',
]

model = dict(backbone=_base_.swin_tiny, neck=dict(in_channels=_base_.swin_channels))
