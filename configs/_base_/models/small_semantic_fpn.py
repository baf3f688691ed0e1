# mmseg's Semantic FPN with 64 channels in neck and head, for small images and a CPU.
_base_ = 'mmseg::_base_/models/fpn_r50.py'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    # Padded to multiples of 32 in testing: only then do the feature maps of all strides align exactly.
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=32)),
    pretrained=None,
    neck=dict(out_channels=64, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64, dropout_ratio=0.0, num_classes=6, norm_cfg=norm_cfg),
)
