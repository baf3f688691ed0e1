# classification.py with DAT-T and layer-wise decay: the learning rate falls by a factor for each block, from the head
# to the first layer. Set the variables there.
_base_ = './classification.py'
checkpoint = 'official://dat-tiny_in1k'

model = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny',
        out_indices=(3,),
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=768),
)
optim_wrapper = dict(
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.8,
        custom_keys=dict(
            _delete_=True,
            relative_position_bias_table=dict(decay_mult=0.0),
            rpe_table=dict(decay_mult=0.0),
        ),
    ),
)
