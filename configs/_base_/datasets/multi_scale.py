# Steps of training pipelines for COCO, as variables: pictures of several scales, long side at most 1333.
ms_resize = dict(type='RandomChoiceResize', scales=[(1333, short) for short in range(640, 801, 32)], keep_ratio=True)
# The augmentation of DETR and Sparse R-CNN, which Swin and DAT++ train with: short side from 480 to 800, or 400 to 600, then a
# crop, then 480 to 800.
_resize = dict(type='RandomChoiceResize', scales=[(1333, short) for short in range(480, 801, 32)], keep_ratio=True)
ms_crop = [
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [_resize],
            [
                dict(type='RandomChoiceResize', scales=[(1333, 400), (1333, 500), (1333, 600)], keep_ratio=True),
                dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
                _resize,
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
