# The official training is in half precision: add --amp.
_base_ = './gfl_pvtv2-b2_fpn_ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b2-li',
        init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2_li.pth'),
    )
)
