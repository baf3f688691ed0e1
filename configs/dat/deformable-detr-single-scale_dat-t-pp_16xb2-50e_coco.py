_base_ = './deformable-detr-single-scale_dat-t_16xb2-50e_coco.py'

model = dict(
    backbone=dict(arch='tiny++', init_cfg=dict(checkpoint='checkpoints/dat-tiny-pp_in1k.pth')),
    neck=dict(in_channels=[512]),
)
