_base_ = './pvt_shapes.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='DAT',
        arch=dict(
            like='tiny++',
            embed_dims=(64, 96, 128, 160),
            depths=(1, 2, 2, 1),
            num_heads=(1, 2, 4, 5),
            mlp_ratios=(4, 4, 4, 4),
            blocks=('N', 'ND', 'ND', 'D'),
            groups=(1, 1, 2, 5),
            strides=(4, 2, 1, 1),
        ),
        pretrain_img_size=64,
        out_indices=(3,),
    ),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
)
