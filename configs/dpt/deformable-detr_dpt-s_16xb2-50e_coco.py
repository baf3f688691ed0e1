_base_ = './deformable-detr_dpt-t_16xb2-50e_coco.py'

model = dict(backbone=dict(_base_.dpt.small, out_indices=(1, 2, 3)))
