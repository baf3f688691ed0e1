# The official training is in half precision: add --amp.
_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    '../_base_/datasets/imagenet_bs24_384.py',
    '../_base_/schedules/imagenet_bs1024_adamw_dat.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='base',
        pretrain_img_size=384,
        window_size=12,
        out_indices=(3,),
        drop_path_rate=0.5,
    ),
    head=dict(in_channels=1024),
)
# 30 epochs of fine-tuning from the weights of 224 pixels.
# The position bias tables are resized to the larger windows on loading.
load_from = 'official://dat-base_in1k'
# lr 2e-6 x 192 / 512 = 7.5e-7, cosine to 1e-7 x 192 / 512 = 3.75e-8, no warm-up
optim_wrapper = dict(optimizer=dict(lr=7.5e-7, weight_decay=1e-8))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=3.75e-8, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=192)
