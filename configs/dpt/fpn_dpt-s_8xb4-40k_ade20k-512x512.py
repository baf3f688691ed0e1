_base_ = './fpn_dpt-t_8xb4-40k_ade20k-512x512.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='official://dpt-small_in1k')))
