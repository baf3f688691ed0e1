_base_ = [
    '../_base_/backbones/small.py',
    '../_base_/models/small_detr.py',
    '../_base_/datasets/shapes_coco.py',
    '../_base_/schedules/shapes_detr.py',
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    _base_.small_detr,
    backbone=dict(_base_.small_dat, out_indices=(3,)),
    neck=dict(in_channels=_base_.small_channels[3:]),
)

train_dataloader = _base_.shapes_train_dataloader
val_dataloader = _base_.shapes_test_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.shapes_evaluator
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=_base_.shapes_detr_epochs, val_interval=6)
optim_wrapper = _base_.shapes_detr_optimizer
param_scheduler = _base_.shapes_detr_scheduler
auto_scale_lr = dict(base_batch_size=4)
