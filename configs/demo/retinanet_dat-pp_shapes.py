_base_ = './retinanet_pvt_shapes.py'

model = dict(backbone=dict(_delete_=True, type='DAT', arch='test++', pretrain_img_size=128))
