# COCO with the augmentation of DETR and Sparse R-CNN, which Swin Transformer and DAT++ train with: a short side of 480
# to 800 pixels, or of 400 to 600, then a crop, then 480 to 800; the long side is at most 1333.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(
                    type='RandomChoiceResize',
                    scales=[
                        (1333, 480),
                        (1333, 512),
                        (1333, 544),
                        (1333, 576),
                        (1333, 608),
                        (1333, 640),
                        (1333, 672),
                        (1333, 704),
                        (1333, 736),
                        (1333, 768),
                        (1333, 800),
                    ],
                    keep_ratio=True,
                )
            ],
            [
                dict(type='RandomChoiceResize', scales=[(1333, 400), (1333, 500), (1333, 600)], keep_ratio=True),
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
                dict(
                    type='RandomChoiceResize',
                    scales=[
                        (1333, 480),
                        (1333, 512),
                        (1333, 544),
                        (1333, 576),
                        (1333, 608),
                        (1333, 640),
                        (1333, 672),
                        (1333, 704),
                        (1333, 736),
                        (1333, 768),
                        (1333, 800),
                    ],
                    keep_ratio=True,
                ),
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
