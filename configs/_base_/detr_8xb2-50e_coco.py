# mmdet's DETR as PVT and DPT train it: 50 epochs, the learning rate dropped after 33, a short side of 640 to 800
# pixels, images padded to multiples of 32.
_base_ = 'mmdet::detr/detr_r50_8xb2-150e_coco.py'

model = dict(data_preprocessor=dict(pad_size_divisor=32))

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)],
        keep_ratio=True,
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[33], gamma=0.1)]
