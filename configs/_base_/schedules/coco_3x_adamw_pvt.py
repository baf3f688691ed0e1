# 36 epochs, as DPT trains its detectors with pictures of several scales.
_base_ = './coco_1x_adamw_pvt.py'

train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[28, 34], gamma=0.1),
]
