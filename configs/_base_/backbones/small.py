# Small backbones for the built-in shapes: 1 to 2 M parameters, a twentieth of a second for a 128 x 128 picture's step.
# `_delete_` takes the host's backbone out of the model that they go into.
_small = dict(
    embed_dims=(32, 64, 128, 160),
    depths=(1, 2, 2, 1),
    num_heads=(1, 2, 4, 5),
    mlp_ratios=(4, 4, 4, 4),
)
# Half of PVT's: the pictures are so small that keys and values would be too coarse to tell shapes apart.
_sr_ratios = (4, 2, 1, 1)
small_channels = [32, 64, 128, 160]
# A plain patch of 4 x 4 pixels holds 48 numbers, which 32 channels cannot: Semantic FPN lost 5 mIoU by that.
_patches = dict(_small, embed_dims=(64, 96, 128, 160), sr_ratios=_sr_ratios)
patch_channels = [64, 96, 128, 160]
small_pvt = dict(_delete_=True, type='PVT', arch=_patches, pretrain_img_size=128)
small_pvtv2 = dict(_delete_=True, type='PVTv2', arch=dict(_small, sr_ratios=_sr_ratios, linear=False))
small_dpt = dict(_delete_=True, type='DPT', arch=dict(_patches, points=(0, 3, 3, 3)), pretrain_img_size=128)
_groups = dict(groups=(1, 1, 2, 5), strides=(4, 2, 1, 1))
small_dat = dict(
    _delete_=True,
    type='DAT',
    arch=dict(like='tiny', blocks=('L', 'LS', 'LD', 'D'), **_small, **_groups),
    pretrain_img_size=128,
)
small_datpp = dict(
    _delete_=True,
    type='DAT',
    arch=dict(like='tiny++', blocks=('N', 'ND', 'ND', 'D'), **_small, **_groups),
    pretrain_img_size=128,
)
