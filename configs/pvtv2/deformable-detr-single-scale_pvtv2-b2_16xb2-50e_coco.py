_base_ = './deformable-detr-single-scale_pvtv2-b1_16xb2-50e_coco.py'

model = dict(
    backbone=dict(
        arch='b2',
        init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth'),
    )
)
