_base_ = './deformable-detr_pvt_shapes.py'

model = dict(backbone=dict(_base_.small_dpt, out_indices=(1, 2, 3)))
optim_wrapper = _base_.small_dpt_optim_wrapper
