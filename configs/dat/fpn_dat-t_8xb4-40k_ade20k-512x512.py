# As in the official code, images are tested without resizing or padding to multiples of 32.
_base_ = [
    '../_base_/models/semantic_fpn.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/ade20k_40k_adamw-wd1e-4.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(test_cfg=None),
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny',
        drop_path_rate=0.2,
        # configs/dat/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dat-tiny_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
# no weight decay for norms and position bias tables
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.0),
            relative_position_bias_table=dict(decay_mult=0.0),
            rpe_table=dict(decay_mult=0.0),
            norm=dict(decay_mult=0.0),
        )
    )
)
