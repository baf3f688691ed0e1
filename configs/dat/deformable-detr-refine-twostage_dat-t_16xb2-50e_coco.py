_base_ = './deformable-detr-refine_dat-t_16xb2-50e_coco.py'

model = dict(as_two_stage=True)
