_base_ = './mask2former_dat-t_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='tiny++', init_cfg=dict(checkpoint='official://dat-tiny-pp_in1k')),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
