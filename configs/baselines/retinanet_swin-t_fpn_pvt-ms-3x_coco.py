_base_ = [
    '../_base_/backbones/swin.py',
    './retinanet_r50_fpn_pvt-ms-3x_coco.py',
]

model = dict(
    backbone=dict(_base_.swin_tiny, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.swin_channels[1:], start_level=0),
)
