_base_ = './mask-rcnn_pvtv2-b1_fpn_1x_coco.py'

model = dict(backbone=_base_.pvtv2.b0, neck=dict(in_channels=[32, 64, 160, 256]))
