_base_ = './deformable-detr-refine_dat_shapes.py'

model = dict(as_two_stage=True)
