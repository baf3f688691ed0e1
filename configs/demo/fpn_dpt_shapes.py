_base_ = './fpn_pvtv2_shapes.py'

model = dict(backbone=dict(_delete_=True, type='DPT', arch='test', pretrain_img_size=128))
# a lower learning rate for offsets and sizes of patches, as in retinanet_dpt_shapes.py
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(offset_predictor=dict(lr_mult=0.1), wh_bias=dict(lr_mult=0.1)))
)

# 1000 iterations reach 69 to 72 mIoU, depending on the random seed.
max_iters = 1500
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=max_iters, eta_min=1e-5),
]
