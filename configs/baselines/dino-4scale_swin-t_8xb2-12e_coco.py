_base_ = ['../_base_/backbones/swin.py', 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py']

model = dict(backbone=dict(_base_.swin_tiny, out_indices=(1, 2, 3)), neck=dict(in_channels=_base_.swin_channels[1:]))
