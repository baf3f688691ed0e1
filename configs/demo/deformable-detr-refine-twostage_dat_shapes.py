_base_ = './deformable-detr_dat_shapes.py'

model = dict(with_box_refine=True, as_two_stage=True)
