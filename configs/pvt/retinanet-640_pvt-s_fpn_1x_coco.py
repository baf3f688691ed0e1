# Short side 640, long side at most 1066 (640 / 800 x 1333).
_base_ = './retinanet_pvt-s_fpn_1x_coco.py'

train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = (1066, 640)
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = (1066, 640)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
