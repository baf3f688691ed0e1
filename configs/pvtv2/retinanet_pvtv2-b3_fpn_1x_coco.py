_base_ = './retinanet_pvtv2-b1_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='b3',
        init_cfg=dict(checkpoint='official://pvtv2-b3_in1k'),
    )
)
