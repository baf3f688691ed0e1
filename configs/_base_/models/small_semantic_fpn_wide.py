# small_semantic_fpn.py with 128 channels in neck and head. PVT, DAT and DAT++ have few convolutions to find outlines
# with: at 64 channels they confuse triangles and squares (PVT: 60 mIoU), PVT v2 and DPT do not.
_base_ = 'mmseg::_base_/models/fpn_r50.py'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    # Padded to multiples of 32 in testing: only then do the feature maps of all strides align exactly.
    data_preprocessor=dict(size=(128, 128), test_cfg=dict(size_divisor=32)),
    pretrained=None,
    neck=dict(out_channels=128, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=[128, 128, 128, 128], channels=128, dropout_ratio=0.0, num_classes=6, norm_cfg=norm_cfg
    ),
)
