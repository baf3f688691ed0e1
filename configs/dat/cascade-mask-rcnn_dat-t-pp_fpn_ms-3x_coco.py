_base_ = [
    '../_base_/backbones/dat.py',
    '../_base_/schedules/coco_datpp.py',
    '../baselines/cascade-mask-rcnn_r50_fpn_swin-ms-3x_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(_base_.dat['tiny++'], drop_path_rate=0.1),
    neck=dict(in_channels=_base_.dat_channels['tiny++']),
)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4),  # 1e-4 x 64 / 16
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
auto_scale_lr = _base_.datpp_batch
param_scheduler = _base_.datpp_3x
