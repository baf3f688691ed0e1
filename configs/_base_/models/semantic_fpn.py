# Semantic FPN for ADE20K's 150 classes; the config that inherits this one names the backbone and the neck's in_channels.
_base_ = 'mmseg::_base_/models/fpn_r50.py'

model = dict(
    # Padded to multiples of 32 in testing: only then do the maps of all strides lie exactly on each other.
    data_preprocessor=dict(size=(512, 512), test_cfg=dict(size_divisor=32)),
    pretrained=None,
    decode_head=dict(num_classes=150),
)
