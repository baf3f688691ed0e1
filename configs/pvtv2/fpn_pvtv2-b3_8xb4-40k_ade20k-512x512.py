_base_ = './fpn_pvtv2-b1_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='b3',
        init_cfg=dict(checkpoint='official://pvtv2-b3_in1k'),
    )
)
