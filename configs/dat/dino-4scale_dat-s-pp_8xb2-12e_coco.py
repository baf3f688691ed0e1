_base_ = './dino-4scale_dat-t-pp_8xb2-12e_coco.py'

model = dict(
    backbone=dict(_base_.dat['small++'], out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(in_channels=_base_.dat_channels['small++'][1:]),
)
