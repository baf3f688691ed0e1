_base_ = ['../_base_/backbones/swin.py', './upernet_r50_8xb2-160k_ade20k-512x512.py']

model = dict(
    backbone=dict(_base_.swin_tiny_mmseg, drop_path_rate=0.3),
    decode_head=dict(in_channels=_base_.swin_channels),
    auxiliary_head=dict(in_channels=_base_.swin_channels[2]),
)
