# Small backbones for the built-in shapes: about 1.5 M parameters, a twentieth of a second for a 128 x 128 picture's step.
# `_delete_` takes the host's backbone out of the model that they go into.
_small = dict(
    embed_dims=(32, 64, 128, 160),
    depths=(1, 2, 2, 1),
    num_heads=(1, 2, 4, 5),
    mlp_ratios=(4, 4, 4, 4),
    # Half of PVT's: the pictures are so small that keys and values would be too coarse to tell shapes apart.
    sr_ratios=(4, 2, 1, 1),
)
small_channels = [32, 64, 128, 160]
small_pvt = dict(_delete_=True, type='PVT', arch=_small, pretrain_img_size=128)
small_pvtv2 = dict(_delete_=True, type='PVTv2', arch=dict(_small, linear=False))
