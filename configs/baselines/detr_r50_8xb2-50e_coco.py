# mmdet's DETR for 50 epochs, the learning rate dropped after 33, pictures of 640 to 800: as PVT and DPT train it.
_base_ = ['../_base_/datasets/multi_scale.py', 'mmdet::detr/detr_r50_8xb2-150e_coco.py']

model = dict(data_preprocessor=dict(pad_size_divisor=32))
train_pipeline = [*_base_.train_pipeline[:3], _base_.ms_resize, dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=50)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=50, milestones=[33], gamma=0.1)]
