# Semantic FPN for ADE20K's 150 classes. A config that inherits it sets the backbone and the neck's in_channels.
_base_ = 'mmseg::_base_/models/fpn_r50.py'

model = dict(
    # Padded to multiples of 32 in testing, also with --tta: only then do the feature maps of all strides align exactly.
    data_preprocessor=dict(size=(512, 512), test_cfg=dict(size_divisor=32)),
    pretrained=None,
    decode_head=dict(num_classes=150),
)
