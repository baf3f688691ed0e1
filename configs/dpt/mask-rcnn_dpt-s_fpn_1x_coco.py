_base_ = './mask-rcnn_dpt-t_fpn_1x_coco.py'

model = dict(backbone=_base_.dpt.small)
