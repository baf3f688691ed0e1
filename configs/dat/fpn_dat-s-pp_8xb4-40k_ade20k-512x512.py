_base_ = './fpn_dat-t_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='small++', drop_path_rate=0.4, init_cfg=dict(checkpoint='official://dat-small-pp_in1k'))
)
