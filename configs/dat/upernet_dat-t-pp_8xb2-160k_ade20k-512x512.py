_base_ = './upernet_dat-t_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(_base_.dat['tiny++'], drop_path_rate=0.3),
    decode_head=dict(in_channels=_base_.dat_channels['tiny++']),
    auxiliary_head=dict(in_channels=_base_.dat_channels['tiny++'][2]),
)
