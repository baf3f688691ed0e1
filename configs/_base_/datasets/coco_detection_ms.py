# Short side from 640 to 800 in steps of 32, long side at most 1333.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type='RandomChoiceResize', scales=[(1333, short) for short in range(640, 801, 32)], keep_ratio=True
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
