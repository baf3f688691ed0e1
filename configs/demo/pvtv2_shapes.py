_base_ = './pvt_shapes.py'

model = dict(backbone=dict(_base_.small_pvtv2, out_indices=(3,)), neck=dict(_delete_=True, type='GlobalAveragePooling'))
