_base_ = './mask-rcnn_pvt-t_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.0,  # the official M and L have none in detection
        init_cfg=dict(checkpoint='official://pvt-large_in1k'),
    )
)
# 8 GPUs with one image each. The batch of 8, half of that of the smaller sizes, takes 1 / 1.4 of their learning rate.
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))
auto_scale_lr = dict(base_batch_size=8)
