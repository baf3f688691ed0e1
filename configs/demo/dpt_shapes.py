_base_ = './pvt_shapes.py'

model = dict(backbone=dict(_base_.small_dpt, pretrain_img_size=64, out_indices=(3,), out_type='cls_token'))
optim_wrapper = _base_.small_dpt_optim_wrapper
