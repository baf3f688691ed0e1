# The official training is in half precision: add --amp.
_base_ = './dat-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch='base++', drop_path_rate=0.7), head=dict(in_channels=1024))
train_dataloader = dict(batch_size=64)
