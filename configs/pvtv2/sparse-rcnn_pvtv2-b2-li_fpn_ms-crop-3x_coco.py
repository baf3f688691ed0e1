_base_ = './sparse-rcnn_pvtv2-b2_fpn_8xb1-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b2-li',
        init_cfg=dict(checkpoint='official://pvtv2-b2-li_in1k'),
    )
)
# 8 GPUs with two images each
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=2.5e-5))
auto_scale_lr = dict(base_batch_size=16)
