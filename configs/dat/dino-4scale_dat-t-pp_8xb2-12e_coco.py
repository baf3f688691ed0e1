_base_ = [
    '../_base_/backbones/dat.py',
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(_base_.dat['tiny++'], out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=_base_.dat_channels['tiny++'][1:]),
)
