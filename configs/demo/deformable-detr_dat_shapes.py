_base_ = './deformable-detr_pvt_shapes.py'

model = dict(backbone=dict(_delete_=True, type='DAT', arch='test', pretrain_img_size=128, out_indices=(1, 2, 3)))
