# mmseg's Mask2Former, with the weight decays of mask2former_8xb2-lsj-50e_coco.py, which gives the reasons, and --tta at
# multiples of the single-scale test size, as in datasets/ade20k.py.
_base_ = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'

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

tta_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(1024, 256), keep_ratio=True),
                dict(type='Resize', scale=(1536, 384), keep_ratio=True),
                dict(type='Resize', scale=(2048, 512), keep_ratio=True),
                dict(type='Resize', scale=(2560, 640), keep_ratio=True),
                dict(type='Resize', scale=(3072, 768), keep_ratio=True),
                dict(type='Resize', scale=(3584, 896), keep_ratio=True),
            ],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
