_base_ = './retinanet_pvt_shapes.py'

model = dict(backbone=dict(type='DPT'))
# The layers that predict offsets and sizes of patches learn at a tenth of the rate, as sampling offsets do in
# Deformable DETR. At the full rate, high for training from scratch, the patches of stage 3 shrink to points, which
# have no gradient: RetinaNet ends at 0.59 AP50.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(offset_predictor=dict(lr_mult=0.1), wh_bias=dict(lr_mult=0.1)))
)
