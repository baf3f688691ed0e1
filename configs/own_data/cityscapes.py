# Semantic FPN with PVT-Tiny on Cityscapes' 19 classes: 40k iterations of 8 images. README.md says how the masks are made.
_base_ = [
    '../_base_/models/semantic_fpn.py',
    'mmseg::_base_/datasets/cityscapes.py',
    '../_base_/schedules/ade20k_40k_adamw-wd1e-4.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

# Any backbone of configs/, as in its Semantic FPN config.
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(
        _delete_=True,
        type='PVT',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
    decode_head=dict(num_classes=19),
)
train_dataloader = dict(batch_size=8)
# Half of ADE20K's 2e-4, for a quarter of its batch of 32.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(base_batch_size=8)
