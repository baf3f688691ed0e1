_base_ = './fpn_pvt-t_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='large',
        init_cfg=dict(checkpoint='official://pvt-large_in1k'),
    )
)
