# mmdet's Cascade Mask R-CNN with 64 channels in neck and heads.
_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py', './small_roi.py']

model = dict(
    neck=dict(out_channels=64, norm_cfg=_base_.small_norm),
    rpn_head=_base_.small_rpn_head,
    roi_head=dict(
        bbox_roi_extractor=_base_.small_extractor,
        bbox_head=[dict(head, **_base_.small_bbox_head) for head in _base_.model.roi_head.bbox_head],
        mask_roi_extractor=_base_.small_extractor,
        mask_head=_base_.small_mask_head,
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=[
            dict(stage, sampler=dict(stage.sampler, **_base_.small_sampler)) for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=100)),
)
