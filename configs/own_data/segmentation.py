# A semantic segmentor for your own images and masks. Copy this file and set the four variables.
# _base_: any Semantic FPN in configs/, also of configs/demo; for UPerNet see below.
# A small model for the first try, which a CPU can train. On a GPU: '../dat/fpn_dat-t_8xb4-40k_ade20k-512x512.py', and image_size = 512.
_base_ = '../pvtv2/fpn_pvtv2-b0_8xb4-40k_ade20k-512x512.py'
# Images are scaled to a shorter side of about this many pixels; training takes square crops of this size.
image_size = 256
# A directory with images/{training,validation}/*.jpg and annotations/{training,validation}/*.png of the same names. A pixel of a
# mask is the index of its class, or 255 to ignore it.
data_root = 'data/own'
classes = ('background', 'cat', 'dog')

custom_imports = dict(imports=['deformable_vit', 'deformable_vit.datasets.segmentation'], allow_failed_imports=False)

# UPerNet has a second head: add auxiliary_head=dict(num_classes=len(classes)), and set lr to 4e-5 below.
model = dict(
    data_preprocessor=dict(size=(image_size, image_size)),
    decode_head=dict(num_classes=len(classes)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(4 * image_size, image_size), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(image_size, image_size), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(4 * image_size, image_size), keep_ratio=True),
    # after resizing, because the ground truth keeps its size
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# for --tta
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(4 * size, size), keep_ratio=True)
                for size in (image_size * 3 // 4, image_size, image_size * 5 // 4)
            ],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True,
        type='CustomSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        metainfo=dict(classes=classes),  # with palette=[(R, G, B), ...] for colors of your own
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        metainfo=dict(classes=classes),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
visualizer = dict(type='ContiguousSegVisualizer')  # lets mmseg's browse_dataset.py draw

# A schedule for hundreds to thousands of images; a twentieth of the iterations is warm-up.
train_cfg = dict(max_iters=8000, val_interval=800)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=400),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=400, end=8000),
]
# Half of ADE20K's 2e-4: the batch is a quarter of ADE20K's 32, and AdamW's learning rate goes with the square root of the batch size.
# For several GPUs or another batch_size add --auto-scale-lr, which scales linearly from these 8.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=800, max_keep_ckpts=2, save_best='mIoU'))
