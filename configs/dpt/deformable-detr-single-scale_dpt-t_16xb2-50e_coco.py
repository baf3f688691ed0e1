# The single-scale Deformable DETR of its paper: only the last feature map, of stride 32.
_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    num_feature_levels=1,
    backbone=dict(
        _delete_=True,
        type='DPT',
        arch='tiny',
        out_indices=(3,),
        drop_path_rate=0.1,
        # configs/dpt/README.md links the official checkpoint
        init_cfg=dict(type='Pretrained', checkpoint='official://dpt-tiny_in1k'),
    ),
    neck=dict(in_channels=[512], num_outs=1),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=1))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=1))),
)
