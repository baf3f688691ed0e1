# mmdet's Mask2Former with 2 encoder and 3 decoder layers instead of 6 and 9, for small images, a CPU and training from
# scratch.
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
custom_imports = dict(imports=['deformable_vit'], allow_failed_imports=False)

model = dict(
    # Not padded to 1024 x 1024, but to the largest image of a batch.
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(_delete_=True, type='DAT', arch='test++', pretrain_img_size=128),
    panoptic_head=dict(
        in_channels=[64, 96, 128, 160],
        num_queries=30,
        num_things_classes=5,
        pixel_decoder=dict(encoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=512)))),
        transformer_decoder=dict(num_layers=3, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=512))),
        loss_cls=dict(class_weight=[1.0, 1.0, 1.0, 1.0, 1.0, 0.1]),
    ),
    panoptic_fusion_head=dict(num_things_classes=5),
    # masks of at most 32 x 32 pixels: no more points than pixels
    train_cfg=dict(num_points=1024),
    test_cfg=dict(max_per_image=30),
)

data_root = 'data/shapes/coco/'
metainfo = dict(
    classes=('disc', 'triangle', 'square', 'star', 'ring'),
    palette=[(230, 60, 60), (70, 200, 70), (70, 110, 240), (240, 200, 40), (60, 210, 220)],
)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(0.8, 1.3), keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_size=(128, 128),
        crop_type='absolute',
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='RandomFlip', prob=[0.25] * 3, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    batch_sampler=None,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

# The backbone is trained from scratch, at five times the learning rate of the head; a pretrained one takes a tenth.
max_epochs = 22
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(
            backbone=dict(lr_mult=5.0),
            query_embed=dict(decay_mult=0.0),
            query_feat=dict(decay_mult=0.0),
            level_embed=dict(decay_mult=0.0),
        ),
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
    ),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, eta_min=1e-5, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
auto_scale_lr = dict(base_batch_size=4)
