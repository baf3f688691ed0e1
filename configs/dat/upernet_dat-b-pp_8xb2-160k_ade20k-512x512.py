_base_ = './upernet_dat-t_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(_base_.dat['base++'], drop_path_rate=0.7),
    decode_head=dict(in_channels=_base_.dat_channels['base++']),
    auxiliary_head=dict(in_channels=_base_.dat_channels['base++'][2]),
)
