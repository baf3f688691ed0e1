_base_ = './mask-rcnn_pvt_shapes.py'

model = dict(backbone=_base_.small_dpt)
