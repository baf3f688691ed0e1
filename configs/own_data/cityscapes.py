# Semantic FPN with PVT-Tiny on Cityscapes' 19 classes: 40k iterations of 8 images. README.md says how the masks are made.
_base_ = [
    '../_base_/models/semantic_fpn.py',
    'mmseg::_base_/datasets/cityscapes.py',
    '../_base_/schedules/ade20k_40k_adamw-wd1e-4.py',
    'mmseg::_base_/default_runtime.py',
]
# Height and width of the crops of training; testing is on whole images of 1024 x 2048 pixels.
image_size = (512, 1024)
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

# Any backbone of configs/, as in its Semantic FPN config.
model = dict(
    data_preprocessor=dict(size=image_size),
    backbone=dict(
        _delete_=True,
        type='PVT',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='official://pvt-tiny_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
    decode_head=dict(num_classes=19),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=image_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
# Half of ADE20K's 2e-4, for a quarter of its batch of 32.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(base_batch_size=8)
