_base_ = [
    '../_base_/backbones/dat.py',
    '../_base_/schedules/no_decay.py',
    '../baselines/fpn_r50_8xb4-40k_ade20k-512x512.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(backbone=dict(_base_.dat.tiny, drop_path_rate=0.2), neck=dict(in_channels=_base_.dat_channels.tiny))
optim_wrapper = dict(paramwise_cfg=_base_.no_decay)
# The authors test without resizing to multiples of 32; the model pads to them.
test_pipeline = [step for step in _base_.test_pipeline if step['type'] != 'ResizeToMultiple']
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
