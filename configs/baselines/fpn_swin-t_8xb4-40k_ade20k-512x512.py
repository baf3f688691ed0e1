_base_ = './fpn_r50_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            # in mmseg's parameter names
            checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
