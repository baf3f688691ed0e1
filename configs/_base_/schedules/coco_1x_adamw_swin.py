# AdamW, 12 epochs: Swin Transformer's settings, which DAT follows. Learning rate and warm-up (1000 steps, an eighth of an epoch)
# are for its batch of 16.
_base_ = ['mmdet::_base_/schedules/schedule_1x.py', './no_decay.py']

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=_base_.no_decay,
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
