# The built-in drawn shapes as COCO instances (tools/make_shapes.py): variables for a detector's dataloaders.
shapes_root = 'data/shapes/coco/'
shapes_metainfo = dict(
    classes=('disc', 'triangle', 'square', 'star', 'ring'),
    palette=[(230, 60, 60), (70, 200, 70), (70, 110, 240), (240, 200, 40), (60, 210, 220)],
)
# The scenes are drawn at this size; a detector sees them as they are.
shapes_scale = (128, 128)

shapes_train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=shapes_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
shapes_test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=shapes_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
shapes_train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    batch_sampler=None,
    dataset=dict(data_root=shapes_root, metainfo=shapes_metainfo, pipeline=shapes_train_pipeline),
)
shapes_test_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(data_root=shapes_root, metainfo=shapes_metainfo, pipeline=shapes_test_pipeline),
)
shapes_evaluator = dict(ann_file=shapes_root + 'annotations/instances_val2017.json')
