_base_ = [
    '../_base_/backbones/small.py',
    '../_base_/models/small_detr.py',
    '../_base_/datasets/shapes_coco.py',
    '../_base_/schedules/shapes_detr.py',
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',
]
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

# Of stride 16, not 32: pictures of 128 x 128 would be 16 tokens.
model = dict(
    _base_.small_detr,
    backbone=dict(_base_.small_dat, out_indices=(2,)),
    neck=dict(in_channels=_base_.small_channels[2:3]),
)

train_dataloader = _base_.shapes_train_dataloader
val_dataloader = _base_.shapes_test_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.shapes_evaluator
test_evaluator = val_evaluator

# Attention over the whole map finds objects slowly: four times the epochs of the deformable forms, at less than half their rate.
epochs = 40
train_cfg = dict(max_epochs=epochs, val_interval=8)
_optimizer = _base_.shapes_detr_optimizer
optim_wrapper = dict(_optimizer, optimizer=dict(_optimizer.optimizer, lr=2e-4))
param_scheduler = [
    _base_.shapes_detr_scheduler[0],
    dict(_base_.shapes_detr_scheduler[1], end=epochs),
]
auto_scale_lr = dict(base_batch_size=4)
