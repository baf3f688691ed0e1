_base_ = ['mmdet::_base_/datasets/coco_instance.py', './shapes_coco.py']

train_dataloader = _base_.shapes_train_dataloader
val_dataloader = _base_.shapes_test_dataloader
test_dataloader = val_dataloader
val_evaluator = _base_.shapes_evaluator
test_evaluator = val_evaluator
