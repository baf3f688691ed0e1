_base_ = [
    '../_base_/backbones/pvt.py',
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(backbone=dict(_base_.pvt.tiny, out_indices=(1, 2, 3)), neck=dict(in_channels=_base_.pvt_channels[1:]))
