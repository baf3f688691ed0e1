# The official training is in half precision: add --amp.
# The official recipe has the same augmentation for 12 epochs as for 36.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_1x_adamw-wd5e-2_bs64.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch='tiny++',
        drop_path_rate=0.0,
        # configs/dat/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dat-tiny-pp_in1k'),
    ),
    # a convolution for the coarsest feature map, as in the official config
    neck=dict(in_channels=[64, 128, 256, 512], add_extra_convs='on_input'),
)
