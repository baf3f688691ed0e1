_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny++',
        out_indices=(1, 2, 3),
        drop_path_rate=0.2,
        # configs/dat/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dat-tiny-pp_in1k'),
    ),
    neck=dict(in_channels=[128, 256, 512]),
)
