_base_ = './pvt_shapes.py'

model = dict(
    backbone=dict(_delete_=True, type='DAT', arch='test', pretrain_img_size=64, out_indices=(3,)),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
)
