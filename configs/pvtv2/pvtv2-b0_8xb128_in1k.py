# The official training is in half precision: add --amp.
_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    '../_base_/datasets/imagenet_bs128_repeated_aug.py',
    '../_base_/schedules/imagenet_bs1024_adamw_pvt.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='PVTv2', arch='b0', out_indices=(3,), drop_path_rate=0.1),
    head=dict(in_channels=256),
)
