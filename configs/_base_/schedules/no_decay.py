# Swin Transformer and DAT take weight decay from norms and tables of position biases: a variable for paramwise_cfg.
no_decay = dict(
    custom_keys=dict(
        absolute_pos_embed=dict(decay_mult=0.0),
        relative_position_bias_table=dict(decay_mult=0.0),
        rpe_table=dict(decay_mult=0.0),
        norm=dict(decay_mult=0.0),
    )
)
