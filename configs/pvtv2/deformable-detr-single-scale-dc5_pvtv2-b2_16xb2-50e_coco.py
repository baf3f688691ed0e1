# DC5: stage 4 at stride 16; see docs/deviations.md.
_base_ = './deformable-detr-single-scale_pvtv2-b2_16xb2-50e_coco.py'

model = dict(backbone=dict(output_stride=16))
