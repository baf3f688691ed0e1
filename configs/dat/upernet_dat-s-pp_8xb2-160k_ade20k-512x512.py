# The official training is in half precision: add --amp.
_base_ = './upernet_dat-t_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='small++', drop_path_rate=0.5, init_cfg=dict(checkpoint='official://dat-small-pp_in1k'))
)
