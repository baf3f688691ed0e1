_base_ = './fpn_dat-t_8xb4-40k_ade20k-512x512.py'

model = dict(backbone=dict(_base_.dat.base, drop_path_rate=0.5), neck=dict(in_channels=_base_.dat_channels.base))
