_base_ = '../pvt/pvt-tiny_8xb128_in1k.py'

model = dict(backbone=dict(type='DPT'))
