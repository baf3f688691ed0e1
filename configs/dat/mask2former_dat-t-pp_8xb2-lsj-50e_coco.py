_base_ = './mask2former_dat-t_8xb2-lsj-50e_coco.py'

model = dict(
    backbone=dict(arch='tiny++', init_cfg=dict(checkpoint='official://dat-tiny-pp_in1k')),
    panoptic_head=dict(in_channels=[64, 128, 256, 512]),
)
