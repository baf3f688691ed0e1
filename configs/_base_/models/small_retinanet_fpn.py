# mmdet's RetinaNet with 64 channels in neck and head, for small images, a CPU and training from scratch.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

norm_cfg = dict(type='BN')
model = dict(
    # From stride 4 on: the shapes have 15 to 60 pixels.
    neck=dict(out_channels=64, start_level=0, add_extra_convs=False, num_outs=4, norm_cfg=norm_cfg),
    bbox_head=dict(
        num_classes=5,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(strides=[4, 8, 16, 32]),
    ),
)
