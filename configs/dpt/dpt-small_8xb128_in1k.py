# The official training is in half precision: add --amp.
_base_ = './dpt-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch='small'))
