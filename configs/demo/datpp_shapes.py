_base_ = './pvt_shapes.py'

model = dict(
    backbone=dict(_base_.small_datpp, pretrain_img_size=64, out_indices=(3,)),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
)
