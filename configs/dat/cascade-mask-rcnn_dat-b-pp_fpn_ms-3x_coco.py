_base_ = './cascade-mask-rcnn_dat-t-pp_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(_base_.dat['base++'], drop_path_rate=0.8),
    neck=dict(in_channels=_base_.dat_channels['base++']),
)
# 64 GPUs with one picture each: the same batch.
train_dataloader = dict(batch_size=1)
