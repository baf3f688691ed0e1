# 300 epochs with a batch of 1024, as for Swin: lr 5e-4 x 1024 / 512 = 1e-3, 20 epochs of warm-up from
# 5e-7 x 1024 / 512 = 1e-6 = 1e-3 x 1e-3, cosine decay to 5e-6 x 1024 / 512 = 1e-5. Weight decay 0.05, none for norms,
# biases and the tables of deformable and window attention.
# The cosine begins with the warm-up, as in timm; in mmpretrain's schedule for Swin it begins after the warm-up.
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py'

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            '_delete_': True,
            'relative_position_bias_table': dict(decay_mult=0.0),
            'rpe_table': dict(decay_mult=0.0),
        }
    ),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True),
]
