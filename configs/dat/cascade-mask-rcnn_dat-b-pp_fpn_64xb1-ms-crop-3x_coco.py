_base_ = './cascade-mask-rcnn_dat-t-pp_fpn_32xb2-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='base++', drop_path_rate=0.8, init_cfg=dict(checkpoint='official://dat-base-pp_in1k')),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
# 64 GPUs with one image each: the same batch of 64
train_dataloader = dict(batch_size=1)
