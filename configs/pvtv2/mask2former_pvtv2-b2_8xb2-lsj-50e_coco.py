_base_ = './mask2former_pvtv2-b1_8xb2-lsj-50e_coco.py'

model = dict(
    backbone=dict(
        arch='b2',
        init_cfg=dict(checkpoint='official://pvtv2-b2_in1k'),
    )
)
