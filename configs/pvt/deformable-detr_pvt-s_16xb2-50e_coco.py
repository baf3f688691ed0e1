_base_ = './deformable-detr_pvt-t_16xb2-50e_coco.py'

model = dict(backbone=dict(_base_.pvt.small, out_indices=(1, 2, 3)))
