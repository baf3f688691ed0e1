# mmdet's Mask2Former for instances, 50 epochs with large-scale jittering. As with Swin Transformer there, norms and
# position embeddings of the backbone have no weight decay. Of the keys that a parameter's name contains, the longest
# decides: these are longer than 'backbone', and no name in the head contains them.
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'

backbone_norm_multi = dict(lr_mult=0.1, decay_mult=0.0)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'norm1.weight': backbone_norm_multi,
            'norm1.bias': backbone_norm_multi,
            'norm2.weight': backbone_norm_multi,
            'norm2.bias': backbone_norm_multi,
            'embed.norm': backbone_norm_multi,
            'first.norm': backbone_norm_multi,
            'second.norm': backbone_norm_multi,
            'attn.norm': backbone_norm_multi,
            'offset.norm': backbone_norm_multi,
            'backbone.norms': backbone_norm_multi,
            'stages.0.norm': backbone_norm_multi,
            'stages.1.norm': backbone_norm_multi,
            'stages.2.norm': backbone_norm_multi,
            'stages.3.norm': backbone_norm_multi,
            'pos_embed': backbone_norm_multi,
            'relative_position_bias_table': backbone_norm_multi,
            'rpe_table': backbone_norm_multi,
        }
    )
)
