_base_ = './retinanet_pvt_shapes.py'

model = dict(backbone=_base_.small_dat)
