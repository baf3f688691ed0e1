_base_ = './dino-4scale_dat-t-pp_8xb2-12e_coco.py'

model = dict(
    backbone=dict(arch='small++', init_cfg=dict(checkpoint='official://dat-small-pp_in1k')),
    neck=dict(in_channels=[192, 384, 768]),
)
