_base_ = '../_base_/mask2former_8xb2-lsj-50e_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny',
        drop_path_rate=0.3,
        # configs/dat/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dat-tiny_in1k'),
    ),
    panoptic_head=dict(in_channels=[96, 192, 384, 768]),
)
