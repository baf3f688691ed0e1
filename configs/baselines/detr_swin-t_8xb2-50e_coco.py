_base_ = ['../_base_/backbones/swin.py', './detr_r50_8xb2-50e_coco.py']

model = dict(backbone=dict(_base_.swin_tiny, out_indices=(3,)), neck=dict(in_channels=_base_.swin_channels[3:]))
