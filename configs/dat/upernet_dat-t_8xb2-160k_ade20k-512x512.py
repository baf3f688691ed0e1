_base_ = [
    'mmseg::_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/ade20k_160k_adamw-wd1e-2.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny',
        drop_path_rate=0.3,
        # configs/dat/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dat-tiny_in1k'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768], num_classes=150),
    auxiliary_head=dict(in_channels=384, num_classes=150),
)
train_dataloader = dict(batch_size=2)
