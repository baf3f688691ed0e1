_base_ = [
    '../_base_/backbones/small.py',
    '../_base_/models/small_retinanet_fpn.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/shapes_detection.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(backbone=_base_.small_pvt, neck=dict(in_channels=_base_.small_channels))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
