_base_ = './retinanet_pvtv2-b1_fpn_ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b5',
        init_cfg=dict(checkpoint='official://pvtv2-b5_in1k'),
    )
)
