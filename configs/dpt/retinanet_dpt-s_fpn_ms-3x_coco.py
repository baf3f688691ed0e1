_base_ = './retinanet_dpt-t_fpn_ms-3x_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='official://dpt-small_in1k')))
