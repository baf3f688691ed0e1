# The authors augment for 12 epochs as for 36.
_base_ = './cascade-mask-rcnn_dat-t-pp_fpn_ms-3x_coco.py'

model = dict(backbone=dict(_base_.dat['tiny++'], drop_path_rate=0.0))
train_cfg = dict(max_epochs=12)
param_scheduler = _base_.datpp_1x
