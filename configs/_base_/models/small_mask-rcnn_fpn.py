# mmdet's Mask R-CNN with 64 channels in neck and heads, for small pictures, a CPU and training from scratch.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

num_classes = 5
norm_cfg = dict(type='BN')
# One sample a bin: RoIs of small pictures are small, and RoIAlign is what a step on a CPU spends most of its time on.
roi_layer = dict(sampling_ratio=1)
model = dict(
    neck=dict(out_channels=64, norm_cfg=norm_cfg),
    # Anchors of 16 pixels and up: half of the host's, for pictures that are much smaller than COCO's.
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=roi_layer, out_channels=64, finest_scale=28),
        # Normalised convolutions before the linear layer: from scratch they learn the classes twice as fast as two
        # linear layers do.
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=2,
            num_shared_fcs=1,
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            num_classes=num_classes,
            norm_cfg=norm_cfg,
        ),
        mask_roi_extractor=dict(roi_layer=roi_layer, out_channels=64, finest_scale=28),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=num_classes, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=100)),
)
