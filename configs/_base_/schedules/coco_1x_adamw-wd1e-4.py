# AdamW for 12 epochs, as PVT, PVT v2 and DPT train RetinaNet. The learning rate and the warm-up of 500 iterations are
# for a batch of 16; Mask R-CNN takes twice the learning rate.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
