# A detector for your own images, boxes and masks. Copy this file and set `_base_`, `data_root` and `classes`.
# _base_: any Mask R-CNN in configs/; README.md says what differs for Cascade Mask R-CNN.
_base_ = '../pvt/mask-rcnn_pvt-t_fpn_1x_coco.py'
# A directory with the images in train/ and val/, and with train.json and val.json in COCO's format, each box with a "segmentation".
data_root = 'data/own'
# All or some of the names in "categories" of these files, in their order; a single class is ('cat',).
classes = ('cat', 'dog')

model = dict(
    roi_head=dict(bbox_head=dict(num_classes=len(classes)), mask_head=dict(num_classes=len(classes))),
)

train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='train.json',
        data_prefix=dict(img='train/'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='val.json',
        data_prefix=dict(img='val/'),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}/val.json')
test_evaluator = val_evaluator

# A schedule for hundreds to thousands of images; see detection.py.
train_cfg = dict(max_epochs=36, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, end=36, T_max=35, convert_to_iter_based=True),
]
# For a batch of 4; for another one add --auto-scale-lr.
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best='coco/segm_mAP'))
