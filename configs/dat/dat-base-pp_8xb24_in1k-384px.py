# The official training is in half precision: add --amp.
_base_ = './dat-base_8xb24_in1k-384px.py'

# The official model keeps the position bias tables of 224 pixels.
model = dict(backbone=dict(arch='base++', pretrain_img_size=224, window_size=7, drop_path_rate=0.6))
load_from = 'official://dat-base-pp_in1k'
# lr 2e-5 x 192 / 512 = 7.5e-6, cosine to 2e-7 x 192 / 512 = 7.5e-8
optim_wrapper = dict(optimizer=dict(lr=7.5e-6))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=7.5e-8, by_epoch=True, convert_to_iter_based=True)]
# tested on whole images, not on center crops
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=384, backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
