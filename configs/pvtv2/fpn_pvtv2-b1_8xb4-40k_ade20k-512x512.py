_base_ = [
    '../_base_/backbones/pvtv2.py',
    '../baselines/fpn_r50_8xb4-40k_ade20k-512x512.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(backbone=_base_.pvtv2.b1, neck=dict(in_channels=_base_.pvtv2_channels))
