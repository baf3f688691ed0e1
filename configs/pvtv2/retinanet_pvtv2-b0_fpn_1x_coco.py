# mmdet's config is the authors' recipe: batch 16, AdamW 1e-4, weight decay 1e-4, flips. Only the backbone is this project's.
_base_ = 'mmdet::pvt/retinanet_pvtv2-b0_fpn_1x_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVTv2',
        arch='b0',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b0.pth'
        ),
    ),
)
