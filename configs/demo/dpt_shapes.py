_base_ = './pvt_shapes.py'

model = dict(backbone=dict(type='DPT'))
# a lower learning rate for offsets and sizes of patches, as in retinanet_dpt_shapes.py
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(offset_predictor=dict(lr_mult=0.1), wh_bias=dict(lr_mult=0.1)))
)
