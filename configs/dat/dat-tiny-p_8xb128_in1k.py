# DAT+ of the official code (configs/dat_p.yaml), for which no results are published.
# The official training is in half precision: add --amp.
_base_ = './dat-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch='tiny+'), head=dict(in_channels=512))
