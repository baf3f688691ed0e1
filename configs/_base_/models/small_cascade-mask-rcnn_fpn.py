# mmdet's Cascade Mask R-CNN, made small as small_mask-rcnn_fpn.py makes Mask R-CNN.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='BN')
roi_layer = dict(sampling_ratio=1)
_small_head = dict(
    type='ConvFCBBoxHead',
    num_shared_convs=2,
    num_shared_fcs=1,
    in_channels=64,
    conv_out_channels=64,
    fc_out_channels=256,
    num_classes=5,
    norm_cfg=norm_cfg,
)
model = dict(
    neck=dict(out_channels=64, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=roi_layer, out_channels=64, finest_scale=28),
        bbox_head=[dict(head, **_small_head) for head in _base_.model.roi_head.bbox_head],
        mask_roi_extractor=dict(roi_layer=roi_layer, out_channels=64, finest_scale=28),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=5, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=[
            dict(stage, sampler=dict(stage.sampler, num=32, pos_fraction=0.5)) for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=100)),
)
