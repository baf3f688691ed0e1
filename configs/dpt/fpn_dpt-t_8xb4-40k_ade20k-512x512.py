_base_ = [
    '../_base_/models/semantic_fpn.py',
    '../_base_/datasets/ade20k_aligned.py',
    '../_base_/schedules/ade20k_40k_adamw-wd1e-4.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DPT',
        arch='tiny',
        drop_path_rate=0.1,
        # configs/dpt/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dpt-tiny_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
