# The official training is in half precision: add --amp.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms-crop.py',
    '../_base_/schedules/coco_3x_adamw-wd5e-2_bs64.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny++',
        out_indices=(1, 2, 3),
        drop_path_rate=0.2,
        # configs/dat/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dat-tiny-pp_in1k'),
    ),
    neck=dict(in_channels=[128, 256, 512], start_level=0),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))  # 5e-5 x 64 / 16
