_base_ = [
    '../_base_/models/semantic_fpn.py',
    '../_base_/datasets/ade20k_aligned.py',
    '../_base_/schedules/adamw_poly_40k.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVTv2',
        arch='b0',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b0.pth'
        ),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
