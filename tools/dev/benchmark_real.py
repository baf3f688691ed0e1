"""Check that the whole pipeline can overfit a few real images, from scratch, with tools/train.py and tools/test.py.

Train RetinaNet with PVT-Tiny on COCO images and Semantic FPN with PVT-Tiny on ADE20K images, and test them on the same
images. Both must come close to perfect: anything less is a defect in the data pipeline, the model, the losses or the
metrics. The data directory needs

    coco/*.jpg and one coco/*.json with COCO instances,
    ade/images/validation/*.jpg and ade/annotations/validation/*.png in the layout of ADE20K.
"""

import argparse
import sys
from pathlib import Path

from _trainings import ROOT, missed, run, train_and_test

MINIMUM = {'detection': {'coco/bbox_mAP_50': 0.85}, 'segmentation': {'mIoU': 90.0}}

# No random order or augmentation, so that each epoch repeats the same batches. The learning rate is for training from
# scratch.
DETECTION = """
_base_ = {base!r}
scale = (512, 384)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    *train_pipeline[:-1],
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
data = dict(data_root={data!r}, ann_file={annotations!r}, data_prefix=dict(img=''))
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    sampler=dict(type='InfiniteSampler', shuffle=False),
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline, **data),
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={annotations!r})
test_evaluator = val_evaluator
# Group norm in the head, for training from scratch (Rethinking ImageNet Pre-training, ICCV 2019, section 3.1).
model = dict(
    backbone=dict(init_cfg=None, drop_path_rate=0.0), bbox_head=dict(norm_cfg=dict(type='GN', num_groups=32))
)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=400, val_interval=400)
optim_wrapper = dict(optimizer=dict(lr=3e-4), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=400, eta_min=1e-6),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=400), logger=dict(interval=20))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
"""

SEGMENTATION = """
_base_ = {base!r}
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
data = dict(
    data_root={data!r},
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
)
train_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
# Pad to a multiple of 32 as in testing, because PVT's position embeddings span the padded image. Group norm suits a
# batch of one image. The Lovasz loss (CVPR 2018, https://arxiv.org/abs/1705.08790) weights all classes of an image
# equally: a street light has 200 pixels, which hardly count in the mean over all pixels.
model = dict(
    data_preprocessor=dict(size=None, size_divisor=32),
    backbone=dict(init_cfg=None, drop_path_rate=0.0),
    decode_head=dict(
        dropout_ratio=0.0,
        norm_cfg=dict(_delete_=True, type='GN', num_groups=32),
        loss_decode=[dict(type='CrossEntropyLoss'), dict(type='LovaszLoss', reduction='none')],
    ),
)
train_cfg = dict(max_iters=1200, val_interval=200)
optim_wrapper = dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=1200, eta_min=1e-5),
]
default_hooks = dict(checkpoint=dict(interval=200, max_keep_ckpts=1), logger=dict(interval=50))
randomness = dict(seed=0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='data/real', help='directory with coco/ and ade/ (default: %(default)s)')
    parser.add_argument('--out', default='work_dirs/real', help='directory for logs and images (default: %(default)s)')
    args = parser.parse_args()

    data, out = Path(args.data).resolve(), Path(args.out).resolve()
    annotations = next((data / 'coco').glob('*.json'), None)
    if annotations is None or not (data / 'ade' / 'images' / 'validation').is_dir():
        parser.error(f'--data {data} must contain coco/*.json and ade/images/validation; see --help')
    out.mkdir(parents=True, exist_ok=True)
    pvt = f'{ROOT}/configs/pvt'
    configs = {
        'detection': DETECTION.format(
            base=f'{pvt}/retinanet_pvt-t_fpn_1x_coco.py', data=f'{data}/coco/', annotations=str(annotations)
        ),
        'segmentation': SEGMENTATION.format(base=f'{pvt}/fpn_pvt-t_8xb4-40k_ade20k-512x512.py', data=f'{data}/ade'),
    }
    jobs = {}
    for name, text in configs.items():
        config, work_dir = out / f'{name}.py', out / name
        config.write_text(text)
        jobs[work_dir] = train_and_test(config, work_dir, test_options=('--show-dir', work_dir / 'images'))
    too_low = []
    for work_dir, error in run(jobs, at_once=1):
        if error:
            sys.exit(f'error: {error}')
        too_low += missed(work_dir, MINIMUM[work_dir.name])
    if too_low:
        sys.exit(f'error: expected higher metrics when overfitting: {", ".join(too_low)}')


if __name__ == '__main__':
    main()
