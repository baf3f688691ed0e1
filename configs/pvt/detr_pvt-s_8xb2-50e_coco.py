_base_ = '../_base_/detr_8xb2-50e_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVT',
        arch='small',
        out_indices=(3,),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='official://pvt-small_in1k'),
    ),
    neck=dict(in_channels=[512]),
)
