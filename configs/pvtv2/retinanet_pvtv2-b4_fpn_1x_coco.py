_base_ = './retinanet_pvtv2-b1_fpn_1x_coco.py'

model = dict(backbone=_base_.pvtv2.b4)
