# A detector for your own images and boxes. Copy this file and set the four variables.
# _base_: any RetinaNet, DETR, Deformable DETR or DINO in configs/; detectors with masks: see instance_segmentation.py.
# A small model for the first try, which a CPU can train. On a GPU: '../dat/retinanet_dat-t_fpn_ms-crop-1x_coco.py', and image_size = 800.
_base_ = '../pvtv2/retinanet_pvtv2-b0_fpn_1x_coco.py'
# Images are scaled to a shorter side of at most this many pixels, a longer one of 5/3 of them. More finds smaller objects and takes longer.
image_size = 320
# A directory with the images in train/ and val/, and with train.json and val.json in COCO's format.
data_root = 'data/own'
# All or some of the names in "categories" of these files, in their order; a single class is ('cat',).
classes = ('cat', 'dog')

model = dict(bbox_head=dict(num_classes=len(classes)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(image_size * 5 // 3, image_size), ratio_range=(0.6, 1.0), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(image_size * 5 // 3, image_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}/val.json')
test_evaluator = val_evaluator

# A schedule for hundreds to thousands of images. It counts in epochs, so that warm-up takes one epoch of any dataset and not
# COCO's 500 or 1000 iterations. With fewer than about 300 images train for more epochs.
train_cfg = dict(max_epochs=36, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, end=36, T_max=35, convert_to_iter_based=True),
]
# Half of COCO's 1e-4: the batch is a quarter of COCO's 16, and AdamW's learning rate goes with the square root of the batch size.
# For several GPUs or another batch_size add --auto-scale-lr, which scales linearly from these 4.
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP'))
