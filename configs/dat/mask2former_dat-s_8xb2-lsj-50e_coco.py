_base_ = './mask2former_dat-t_8xb2-lsj-50e_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='official://dat-small_in1k')))
