_base_ = './fpn_pvt_shapes.py'

model = dict(backbone=dict(_delete_=True, type='DAT', arch='test++', pretrain_img_size=128))

# `make demo` trains this model: 450, 650 and 800 iterations reach 72, 78 and 80 mIoU.
max_iters = 650
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=max_iters, eta_min=1e-5),
]
