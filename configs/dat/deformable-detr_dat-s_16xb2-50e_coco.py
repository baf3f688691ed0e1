_base_ = './deformable-detr_dat-t_16xb2-50e_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='official://dat-small_in1k')))
