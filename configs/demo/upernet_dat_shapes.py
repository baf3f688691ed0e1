# mmseg's UPerNet as for Swin Transformer, with 64 channels in its heads, for small pictures and a CPU.
_base_ = [
    '../_base_/backbones/small.py',
    'mmseg::_base_/models/upernet_swin.py',
    '../_base_/datasets/shapes_semantic.py',
    '../_base_/schedules/shapes_semantic_long.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

norm_cfg = dict(type='BN', requires_grad=True)
_head = dict(num_classes=6, norm_cfg=norm_cfg, dropout_ratio=0.0)
model = dict(
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=32)),
    backbone=_base_.small_dat,
    decode_head=dict(_head, in_channels=_base_.small_channels, channels=64),
    auxiliary_head=dict(_head, in_channels=_base_.small_channels[2], channels=64),
)
