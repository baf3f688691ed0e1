_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVT',
        arch='tiny',
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='official://pvt-tiny_in1k'),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
