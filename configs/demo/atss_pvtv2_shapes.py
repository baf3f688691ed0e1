# mmdet's ATSS with the sizes of small_retinanet_fpn.py.
_base_ = [
    '../_base_/models/atss_fpn.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/shapes_detection.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(type='PVTv2', arch='test'),
    neck=dict(
        in_channels=[64, 96, 128, 160],
        out_channels=64,
        start_level=0,
        add_extra_convs=False,
        num_outs=4,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        num_classes=5,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=4, strides=[4, 8, 16, 32]),
    ),
)
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
