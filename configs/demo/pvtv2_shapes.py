_base_ = './pvt_shapes.py'

model = dict(
    backbone=dict(_delete_=True, type='PVTv2', arch='test', out_indices=(3,)),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
)
