_base_ = './mask-rcnn_pvt-t_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='medium',
        init_cfg=dict(checkpoint='official://pvt-medium_in1k'),
    )
)
