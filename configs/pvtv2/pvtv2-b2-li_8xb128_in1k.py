# The official training is in half precision: add --amp.
_base_ = './pvtv2-b0_8xb128_in1k.py'

model = dict(backbone=dict(arch='b2-li'), head=dict(in_channels=512))
