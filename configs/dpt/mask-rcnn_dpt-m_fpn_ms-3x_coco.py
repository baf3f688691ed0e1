_base_ = './mask-rcnn_dpt-t_fpn_ms-3x_coco.py'

model = dict(backbone=_base_.dpt.medium)
