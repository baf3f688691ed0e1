# ImageNet as DAT and DAT++ read it: mmpretrain's augmentation for Swin, 128 images per GPU. Test images are resized to a
# square, 256 x 256 without keeping the aspect ratio, before the center crop (data/build.py of the official repository).
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
