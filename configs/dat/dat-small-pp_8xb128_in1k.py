# The official training is in half precision: add --amp.
_base_ = './dat-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch='small++', drop_path_rate=0.4))
