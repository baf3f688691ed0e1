# Twice as many steps, for what learns slowly (see models/small_semantic_fpn_wide.py): PVT 64 mIoU after 1000, 73 after 2000.
_base_ = './shapes_semantic.py'

max_iters = 2000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=max_iters, eta_min=1e-5),
]
