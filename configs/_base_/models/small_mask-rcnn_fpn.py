# mmdet's Mask R-CNN with 64 channels in neck and heads, for small images, a CPU and training from scratch.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='BN')
model = dict(
    neck=dict(out_channels=64, norm_cfg=norm_cfg),
    # Anchors from 16 pixels, half of mmdet's: the images are much smaller than COCO's.
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        # One sample per bin: the RoIs are small, and RoIAlign takes most of an iteration on a CPU.
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=64, finest_scale=28),
        # Normalized convolutions before the linear layer learn the classes twice as fast from scratch as two linear
        # layers.
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=2,
            num_shared_fcs=1,
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            num_classes=5,
            norm_cfg=norm_cfg,
        ),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=64, finest_scale=28),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=5, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=100)),
)
