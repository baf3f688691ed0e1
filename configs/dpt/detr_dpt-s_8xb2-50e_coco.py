_base_ = '../_base_/detr_8xb2-50e_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DPT',
        arch='small',
        out_indices=(3,),
        drop_path_rate=0.1,
        # configs/dpt/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dpt-small_in1k'),
    ),
    neck=dict(in_channels=[512]),
    train_cfg=dict(
        assigner=dict(
            match_costs=[
                dict(type='ClassificationCost', weight=1.0),
                # corners, the default of mmdet 2.8 that DPT's config keeps; PVT and later mmdet match center and size
                dict(type='BBoxL1Cost', weight=5.0, box_format='xyxy'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ]
        )
    ),
)
