_base_ = './fpn_pvtv2_shapes.py'

model = dict(backbone=_base_.small_dpt)
optim_wrapper = _base_.small_dpt_optim_wrapper
