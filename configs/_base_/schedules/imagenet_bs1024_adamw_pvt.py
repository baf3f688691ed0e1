# 300 epochs of 8 GPUs x 128 images: lr 5e-4 x 1024 / 512 = 1e-3 and weight decay 0.05, as for Swin, but 5 epochs of
# warm-up from 1e-6 = 1e-3 x 1e-3, then cosine decay to 1e-5. No weight decay for norms, biases and the class token.
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py'

optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(_delete_=True, cls_token=dict(decay_mult=0.0))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True),  # over all epochs, as in timm
]
