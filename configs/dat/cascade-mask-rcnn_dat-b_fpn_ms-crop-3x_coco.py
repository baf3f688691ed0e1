_base_ = './cascade-mask-rcnn_dat-t_fpn_ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint='official://dat-base_in1k')),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
