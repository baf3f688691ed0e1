# A detector for boxes in Pascal VOC's format: VOC itself, or XML files of your own. Copy this file and set the four variables.
# _base_: any RetinaNet, DETR, Deformable DETR or DINO in configs/.
# A small model for the first try, which a CPU can train. On a GPU: '../dat/retinanet_dat-t_fpn_ms-crop-1x_coco.py', and image_size = 800.
_base_ = '../pvtv2/retinanet_pvtv2-b0_fpn_1x_coco.py'
# Images are scaled to a shorter side of at most this many pixels, a longer one of 5/3 of them. More finds smaller objects and takes longer.
image_size = 320
# A directory with JPEGImages/*.jpg, Annotations/*.xml, and in ImageSets/Main/{train,val}.txt the names of both splits.
data_root = 'data/VOCdevkit/VOC2012'
# In any order; boxes with other names are left out. These are the 20 of VOC itself.
classes = (
    *('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow'),
    *('diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor'),
)

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
        type='XMLDataset',
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(_delete_=True, sub_data_root=''),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='XMLDataset',
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='ImageSets/Main/val.txt',
        data_prefix=dict(_delete_=True, sub_data_root=''),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode='area')
test_evaluator = val_evaluator

# See detection.py.
train_cfg = dict(max_epochs=36, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, end=36, T_max=35, convert_to_iter_based=True),
]
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best='pascal_voc/mAP'))
