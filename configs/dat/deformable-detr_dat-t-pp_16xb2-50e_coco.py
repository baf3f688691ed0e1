_base_ = './deformable-detr_dat-t_16xb2-50e_coco.py'

model = dict(
    backbone=dict(_base_.dat['tiny++'], out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=_base_.dat_channels['tiny++'][1:]),
)
