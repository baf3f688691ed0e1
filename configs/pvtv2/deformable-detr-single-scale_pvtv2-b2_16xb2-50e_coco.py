_base_ = './deformable-detr-single-scale_pvtv2-b1_16xb2-50e_coco.py'

model = dict(
    backbone=dict(
        arch='b2',
        init_cfg=dict(checkpoint='official://pvtv2-b2_in1k'),
    )
)
