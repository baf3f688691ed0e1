_base_ = './mask-rcnn_pvt-t_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='large',
        init_cfg=dict(checkpoint='official://pvt-large_in1k'),
    )
)
