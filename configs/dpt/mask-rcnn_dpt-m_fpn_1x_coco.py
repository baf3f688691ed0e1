_base_ = './mask-rcnn_dpt-t_fpn_1x_coco.py'

model = dict(backbone=dict(arch='medium', init_cfg=dict(checkpoint='official://dpt-medium_in1k')))
