# mmseg's UPerNet for Swin Transformer with 64 channels in its heads, for small images and a CPU.
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    '../_base_/datasets/shapes_semantic.py',
    '../_base_/schedules/shapes_semantic_long.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=32)),
    backbone=dict(_delete_=True, type='DAT', arch='test', pretrain_img_size=128),
    decode_head=dict(in_channels=[64, 96, 128, 160], channels=64, num_classes=6, dropout_ratio=0.0, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=128, channels=64, num_classes=6, dropout_ratio=0.0, norm_cfg=norm_cfg),
)
