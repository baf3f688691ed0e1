_base_ = './mask-rcnn_pvtv2-b1_fpn_ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b3',
        init_cfg=dict(checkpoint='official://pvtv2-b3_in1k'),
    )
)
