_base_ = './mask-rcnn_pvt-t_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='medium',
        drop_path_rate=0.0,  # the official M and L have none in detection
        init_cfg=dict(checkpoint='official://pvt-medium_in1k'),
    )
)
