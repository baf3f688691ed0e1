_base_ = './deformable-detr_dat-t_16xb2-50e_coco.py'

model = dict(
    backbone=dict(arch='tiny++', init_cfg=dict(checkpoint='official://dat-tiny-pp_in1k')),
    neck=dict(in_channels=[128, 256, 512]),
)
