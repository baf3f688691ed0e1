# Fine-tuning at 384 pixels with the augmentation of 224 (colours are RandAugment's, as in timm), and a centre crop of the
# same share of the picture in testing: 256 / 224 x 384 = 438.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1]['scale'] = 384
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = 438
test_pipeline[2]['crop_size'] = 384

train_dataloader = dict(batch_size=24, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
