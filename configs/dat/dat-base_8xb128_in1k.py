# The official training is in half precision: add --amp.
_base_ = './dat-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.5), head=dict(in_channels=1024))
# lr 4e-4 x 1024 / 512 = 8e-4 after 50 epochs from 1e-6 = 8e-4 / 800
optim_wrapper = dict(optimizer=dict(lr=8e-4), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 800, by_epoch=True, end=50, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True),
]
