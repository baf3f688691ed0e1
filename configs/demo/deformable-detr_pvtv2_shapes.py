_base_ = './deformable-detr_pvt_shapes.py'

model = dict(backbone=dict(_delete_=True, type='PVTv2', arch='test', out_indices=(1, 2, 3)))
