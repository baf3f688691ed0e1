# A classifier for your own images. Copy this file and set the five variables.
# _base_: any ImageNet config in configs/; `checkpoint` is the ImageNet checkpoint of its backbone.
# A small model for the first try, which a CPU can train.
_base_ = '../pvtv2/pvtv2-b0_8xb128_in1k.py'
checkpoint = 'official://pvtv2-b0_in1k'
# Pixels of the square crops that the model sees.
image_size = 224
# A directory with the images in train/CLASS/ and val/CLASS/.
data_root = 'data/own'
# The names of these directories in alphabetical order.
classes = ('cat', 'dog')

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    head=dict(num_classes=len(classes)),
)
data_preprocessor = dict(num_classes=len(classes))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=image_size, crop_ratio_range=(0.3, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=image_size * 256 // 224, edge='short'),
    dict(type='CenterCrop', crop_size=image_size),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=data_root,
        data_prefix='train',
        metainfo=dict(classes=classes),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root=data_root,
        data_prefix='val',
        metainfo=dict(classes=classes),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

# A schedule for hundreds to thousands of images, with one epoch of warm-up.
train_cfg = dict(max_epochs=30, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, end=30, T_max=29, convert_to_iter_based=True),
]
# Fine-tuning takes a tenth of the learning rate of training from scratch. For a batch of 64; for another one add --auto-scale-lr.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best='accuracy/top1'))
