_base_ = [
    '../_base_/models/semantic_fpn.py',
    '../_base_/datasets/ade20k_aligned.py',
    '../_base_/schedules/ade20k_40k_adamw-wd1e-4.py',
    'mmseg::_base_/default_runtime.py',
]

model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c')))
