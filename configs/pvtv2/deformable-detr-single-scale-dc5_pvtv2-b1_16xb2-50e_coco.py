_base_ = './deformable-detr-single-scale_pvtv2-b1_16xb2-50e_coco.py'

model = dict(backbone=dict(output_stride=16))
