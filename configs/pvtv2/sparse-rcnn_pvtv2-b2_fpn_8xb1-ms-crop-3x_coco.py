_base_ = 'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVTv2',
        arch='b2',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='official://pvtv2-b2_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
# 8 GPUs with one image each, and the learning rate of 16 images divided by 1.4
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=2.5e-5 / 1.4))
auto_scale_lr = dict(base_batch_size=8)
