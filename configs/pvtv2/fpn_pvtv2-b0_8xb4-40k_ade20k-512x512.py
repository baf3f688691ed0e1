_base_ = './fpn_pvtv2-b1_8xb4-40k_ade20k-512x512.py'

model = dict(backbone=_base_.pvtv2.b0, neck=dict(in_channels=[32, 64, 160, 256]))
