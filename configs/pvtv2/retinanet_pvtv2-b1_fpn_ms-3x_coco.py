_base_ = [
    '../_base_/backbones/pvtv2.py',
    '../baselines/retinanet_r50_fpn_swin-ms-3x_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(backbone=_base_.pvtv2.b1, neck=dict(in_channels=_base_.pvtv2_channels))
