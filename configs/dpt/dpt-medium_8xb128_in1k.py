_base_ = './dpt-tiny_8xb128_in1k.py'

# PVT-Medium's drop path rate and clipping: no command for DPT-Medium was published.
model = dict(backbone=dict(arch='medium', drop_path_rate=0.3))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
