_base_ = './mask2former_pvtv2-b1_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='b2',
        init_cfg=dict(checkpoint='official://pvtv2-b2_in1k'),
    )
)
