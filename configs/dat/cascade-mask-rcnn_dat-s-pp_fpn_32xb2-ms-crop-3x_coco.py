_base_ = './cascade-mask-rcnn_dat-t-pp_fpn_32xb2-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='small++', drop_path_rate=0.5, init_cfg=dict(checkpoint='official://dat-small-pp_in1k')),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
