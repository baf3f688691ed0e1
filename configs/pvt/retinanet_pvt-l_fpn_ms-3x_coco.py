_base_ = './retinanet_pvt-t_fpn_ms-3x_coco.py'

model = dict(backbone=_base_.pvt.large)
