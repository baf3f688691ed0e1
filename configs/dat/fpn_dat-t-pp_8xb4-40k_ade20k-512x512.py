_base_ = './fpn_dat-t_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='tiny++', drop_path_rate=0.4, init_cfg=dict(checkpoint='official://dat-tiny-pp_in1k')),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
