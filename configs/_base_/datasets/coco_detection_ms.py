_base_ = ['mmdet::_base_/datasets/coco_detection.py', './multi_scale.py']

train_pipeline = _base_.train_pipeline
train_pipeline[2] = _base_.ms_resize
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
