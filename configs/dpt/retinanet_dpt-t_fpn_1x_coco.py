_base_ = [
    '../_base_/backbones/dpt.py',
    '../baselines/retinanet_r50_fpn_pvt-1x_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(backbone=_base_.dpt.tiny, neck=dict(in_channels=_base_.dpt_channels))
