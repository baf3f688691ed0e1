# The official training is in half precision: add --amp.
_base_ = './gfl_pvtv2-b2_fpn_ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b2-li',
        init_cfg=dict(checkpoint='official://pvtv2-b2-li_in1k'),
    )
)
