_base_ = './mask-rcnn_dat-t-pp_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(_base_.dat['small++'], drop_path_rate=0.5),
    neck=dict(in_channels=_base_.dat_channels['small++']),
)
