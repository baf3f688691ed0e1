# Semantic FPN for ADE20K's 150 classes; the config that inherits this one names the backbone and the neck's in_channels.
_base_ = 'mmseg::_base_/models/fpn_r50.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    decode_head=dict(num_classes=150),
)
