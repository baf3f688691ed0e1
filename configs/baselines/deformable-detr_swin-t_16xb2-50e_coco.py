_base_ = [
    '../_base_/backbones/swin.py',
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
]

model = dict(backbone=dict(_base_.swin_tiny, out_indices=(1, 2, 3)), neck=dict(in_channels=_base_.swin_channels[1:]))
