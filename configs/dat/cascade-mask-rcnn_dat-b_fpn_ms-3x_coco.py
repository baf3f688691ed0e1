_base_ = './cascade-mask-rcnn_dat-t_fpn_ms-3x_coco.py'

model = dict(backbone=dict(_base_.dat.base, drop_path_rate=0.3), neck=dict(in_channels=_base_.dat_channels.base))
