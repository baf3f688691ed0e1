_base_ = './deformable-detr_pvt_shapes.py'

model = dict(backbone=dict(_base_.small_datpp, out_indices=(1, 2, 3)))
