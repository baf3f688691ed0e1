# The official training is in half precision: add --amp.
_base_ = './upernet_dat-t_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='tiny++', init_cfg=dict(checkpoint='official://dat-tiny-pp_in1k')),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
