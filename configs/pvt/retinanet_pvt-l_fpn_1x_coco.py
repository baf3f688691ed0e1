# The official training is in half precision: add --amp.
_base_ = './retinanet_pvt-t_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.0,  # the official M and L have none in detection
        init_cfg=dict(checkpoint='official://pvt-large_in1k'),
    )
)
