_base_ = './deformable-detr_pvtv2-b1_16xb2-50e_coco.py'

model = dict(backbone=dict(_base_.pvtv2.b2, out_indices=(1, 2, 3)))
