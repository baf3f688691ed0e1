_base_ = '../_base_/detr_8xb2-50e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        out_indices=(3,),
        drop_path_rate=0.2,
        convert_weights=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth',
        ),
    ),
    neck=dict(in_channels=[768]),
)
