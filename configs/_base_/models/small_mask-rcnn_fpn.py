# mmdet's Mask R-CNN with 64 channels in neck and heads.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './small_roi.py']

model = dict(
    neck=dict(out_channels=64, norm_cfg=_base_.small_norm),
    rpn_head=_base_.small_rpn_head,
    roi_head=dict(
        bbox_roi_extractor=_base_.small_extractor,
        bbox_head=_base_.small_bbox_head,
        mask_roi_extractor=_base_.small_extractor,
        mask_head=_base_.small_mask_head,
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=_base_.small_sampler),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=100)),
)
