# The hosts' Swin-T with its authors' ImageNet weights, for comparison.
swin_channels = [96, 192, 384, 768]
swin_tiny = dict(
    _delete_=True,
    type='SwinTransformer',
    drop_path_rate=0.2,
    convert_weights=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth',
    ),
)
# mmseg's takes the weights in mmseg's names.
swin_tiny_mmseg = dict(
    _delete_=True,
    type='SwinTransformer',
    drop_path_rate=0.2,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
        'swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',
    ),
)
