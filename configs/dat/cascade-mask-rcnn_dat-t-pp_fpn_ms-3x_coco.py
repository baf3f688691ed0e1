_base_ = [
    '../_base_/backbones/dat.py',
    '../baselines/cascade-mask-rcnn_r50_fpn_swin-ms-3x_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(_base_.dat['tiny++'], drop_path_rate=0.1),
    neck=dict(in_channels=_base_.dat_channels['tiny++']),
)
# The authors' 32 GPUs with 2 pictures each: 1e-4 for a batch of 16, times 4. They trained with --amp.
optim_wrapper = dict(optimizer=dict(lr=4e-4))
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
