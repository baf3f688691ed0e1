_base_ = ['mmdet::_base_/datasets/coco_instance.py', './multi_scale.py']

train_pipeline = _base_.train_pipeline[:2] + _base_.ms_crop
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
