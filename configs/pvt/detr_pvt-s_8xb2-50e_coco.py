_base_ = [
    '../_base_/backbones/pvt.py',
    '../baselines/detr_r50_8xb2-50e_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(backbone=dict(_base_.pvt.small, out_indices=(3,)), neck=dict(in_channels=_base_.pvt_channels[3:]))
