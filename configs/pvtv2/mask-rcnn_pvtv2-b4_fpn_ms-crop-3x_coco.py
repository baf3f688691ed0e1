_base_ = './mask-rcnn_pvtv2-b1_fpn_ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b4',
        init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b4.pth'),
    )
)
