_base_ = './deformable-detr-single-scale_dat-t_16xb2-50e_coco.py'

model = dict(backbone=dict(arch='small++', init_cfg=dict(checkpoint='official://dat-small-pp_in1k')))
