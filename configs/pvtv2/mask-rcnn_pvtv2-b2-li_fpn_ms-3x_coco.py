_base_ = './mask-rcnn_pvtv2-b1_fpn_ms-3x_coco.py'

model = dict(backbone=_base_.pvtv2['b2-li'])
