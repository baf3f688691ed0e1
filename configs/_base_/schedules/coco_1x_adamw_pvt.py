# RetinaNet as PVT, PVT v2 and DPT train it: AdamW, 12 epochs. Learning rate and
# warm-up (500 steps) are for their batch of 16; Mask R-CNN takes twice the learning rate.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
