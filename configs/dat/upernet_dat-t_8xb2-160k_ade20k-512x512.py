_base_ = [
    '../_base_/backbones/dat.py',
    '../baselines/upernet_r50_8xb2-160k_ade20k-512x512.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(_base_.dat.tiny, drop_path_rate=0.3),
    decode_head=dict(in_channels=_base_.dat_channels.tiny),
    auxiliary_head=dict(in_channels=_base_.dat_channels.tiny[2]),
)
