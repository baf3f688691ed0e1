_base_ = './fpn_pvt_shapes.py'

model = dict(backbone=_base_.small_dat)
