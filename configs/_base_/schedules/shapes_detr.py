# A short AdamW schedule for the DETR kind, from scratch: variables, because mmdet's DETR configs hold a schedule of their
# own. The backbone is as new as the rest and learns as fast.
shapes_detr_epochs = 10
shapes_detr_optimizer = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys=dict(sampling_offsets=dict(lr_mult=0.1), reference_points=dict(lr_mult=0.1)),
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
    ),
    clip_grad=dict(max_norm=1.0),
)
shapes_detr_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=shapes_detr_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]
