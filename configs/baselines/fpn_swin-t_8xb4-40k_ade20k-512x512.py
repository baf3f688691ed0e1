_base_ = ['../_base_/backbones/swin.py', './fpn_r50_8xb4-40k_ade20k-512x512.py']

model = dict(backbone=_base_.swin_tiny_mmseg, neck=dict(in_channels=_base_.swin_channels))
