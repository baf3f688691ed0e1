_base_ = './retinanet_dat-t_fpn_ms-3x_coco.py'

model = dict(backbone=dict(_base_.dat.small, out_indices=(1, 2, 3), drop_path_rate=0.2))
