_base_ = [
    '../_base_/backbones/swin.py',
    './mask-rcnn_r50_fpn_swin-1x_coco.py',
]

model = dict(backbone=_base_.swin_tiny, neck=dict(in_channels=_base_.swin_channels))
