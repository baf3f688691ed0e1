_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    '../_base_/datasets/shapes_classification.py',
    '../_base_/schedules/shapes_classification.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='PVT', arch='test', pretrain_img_size=64, out_indices=(3,), out_type='cls_token'),
    neck=None,
    head=dict(num_classes=5, in_channels=160),
    train_cfg=None,
)
