# The single-scale form, at stride 16.
_base_ = './deformable-detr_pvt_shapes.py'

model = dict(
    num_feature_levels=1,
    backbone=dict(_delete_=True, type='DAT', arch='test', pretrain_img_size=128, out_indices=(3,), output_stride=16),
    neck=dict(in_channels=[160], num_outs=1),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=1))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=1))),
)
