_base_ = './retinanet_pvt_shapes.py'

model = dict(backbone=dict(_delete_=True, type='PVTv2', arch='test'))
