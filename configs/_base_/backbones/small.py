# Small backbones for the built-in shapes: 2 to 3 M parameters, a twentieth of a second for a 128 x 128 picture's step.
# `_delete_` takes the host's backbone out of the model that they go into.
# A plain patch of 4 x 4 pixels holds 48 numbers; a first stage of 32 channels, which cannot, cost Semantic FPN 5 mIoU.
small_channels = [64, 96, 128, 160]
_small = dict(
    embed_dims=(64, 96, 128, 160),
    depths=(1, 2, 2, 1),
    num_heads=(1, 2, 4, 5),
    mlp_ratios=(4, 4, 4, 4),
)
# Half of PVT's: the pictures are so small that keys and values would be too coarse to tell shapes apart.
_pvt = dict(_small, sr_ratios=(4, 2, 1, 1))
_dat = dict(_small, groups=(1, 1, 2, 5), strides=(4, 2, 1, 1))
small_pvt = dict(_delete_=True, type='PVT', arch=_pvt, pretrain_img_size=128)
small_pvtv2 = dict(_delete_=True, type='PVTv2', arch=dict(_pvt, linear=False))
small_dpt = dict(_delete_=True, type='DPT', arch=dict(_pvt, points=(0, 3, 3, 3)), pretrain_img_size=128)
# What places and sizes the patches learns at a tenth of the rate, as sampling offsets do in Deformable DETR. At the full
# one, high for training from scratch, boxes shrink to points, which have no gradient: all of stage 3, RetinaNet AP50 0.59.
small_dpt_optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(offset_predictor=dict(lr_mult=0.1), wh_bias=dict(lr_mult=0.1)))
)
small_dat = dict(
    _delete_=True,
    type='DAT',
    arch=dict(_dat, like='tiny', blocks=('L', 'LS', 'LD', 'D')),
    pretrain_img_size=128,
)
small_datpp = dict(
    _delete_=True,
    type='DAT',
    arch=dict(_dat, like='tiny++', blocks=('N', 'ND', 'ND', 'D')),
    pretrain_img_size=128,
)
