_base_ = './deformable-detr_pvt-t_16xb2-50e_coco.py'

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='official://pvt-small_in1k'),
    )
)
