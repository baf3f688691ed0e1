_base_ = './sparse-rcnn_pvtv2-b2_fpn_8xb1-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='b2-li',
        init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2_li.pth'),
    )
)
# 8 GPUs with two images each
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=2.5e-5))
auto_scale_lr = dict(base_batch_size=16)
