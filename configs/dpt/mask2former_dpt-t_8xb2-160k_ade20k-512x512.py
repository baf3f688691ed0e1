_base_ = '../_base_/mask2former_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['deformable_vit', 'mmdet.models'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DPT',
        arch='tiny',
        drop_path_rate=0.1,
        # configs/dpt/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dpt-tiny_in1k'),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
)
