_base_ = './mask-rcnn_dat-t_fpn_1x_coco.py'

model = dict(backbone=dict(_base_.dat.small, drop_path_rate=0.2))
