_base_ = './deformable-detr-single-scale_dpt-t_16xb2-50e_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='checkpoints/dpt-small_in1k.pth')))
