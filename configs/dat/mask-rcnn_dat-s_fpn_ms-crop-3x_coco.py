_base_ = './mask-rcnn_dat-t_fpn_ms-crop-3x_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='official://dat-small_in1k')))
