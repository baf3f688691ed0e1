"""Train, test and visualize a detector and a segmentor on synthetic images, in minutes on a CPU."""

import argparse
import os
import sys
from pathlib import Path

from _trainings import CORES, last_checkpoint, missed, run, run_tool, train_and_test

# Minimum metrics on the validation images.
MINIMUM = {
    'mask-rcnn_dat_shapes': {'coco/bbox_mAP_50': 0.80, 'coco/segm_mAP_50': 0.75},
    'fpn_dat-pp_shapes': {'mIoU': 70.0},
}
# No validation during training: the test that follows takes the last checkpoint.
TRAIN_OPTIONS = ('--cfg-options', 'randomness.seed=0', 'train_cfg.val_interval=100000')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='work_dirs/demo', help='directory for all results (default: %(default)s)')
    out = Path(parser.parse_args().out).resolve()
    jobs = {}
    for name in MINIMUM:
        options = ['--show-dir', out / name / 'images']
        if name.startswith('mask-rcnn'):
            options += ['--cfg-options', 'default_hooks.visualization.score_thr=0.5']
        jobs[out / name] = train_and_test(f'configs/demo/{name}.py', out / name, TRAIN_OPTIONS, options)

    run_tool('make_shapes.py', 'data/shapes')
    print('Training and testing two models; everything they print is in')
    for work_dir in jobs:
        print(f'  {os.path.relpath(work_dir / "log.txt")}', flush=True)
    # Small models use one core well and two hardly better, so both train at the same time.
    too_low = []
    for work_dir, error in run(jobs, min(len(jobs), CORES)):
        if error:
            sys.exit(f'error: {error}')  # and end the other
        too_low += missed(work_dir, MINIMUM[work_dir.name])
        print(f'  images      {os.path.relpath(work_dir / "images")}  (left ground truth, right prediction)')
        print(f'  checkpoint  {os.path.relpath(last_checkpoint(work_dir))}', flush=True)

    detector, image = next(iter(jobs)), 'data/shapes/coco/val2017/000001.jpg'
    config, page = f'configs/demo/{detector.name}.py', detector / 'attention.html'
    run_tool('visualize_attention.py', config, last_checkpoint(detector), image, '--out', page, '--overwrite')
    print(f'\nSee where the detector looks, in a browser: {os.path.relpath(page)}')
    print('Next: train RetinaNet with PVT-Tiny on COCO (README.md says where the data goes):')
    print('  .venv/bin/python tools/train.py configs/pvt/retinanet_pvt-t_fpn_1x_coco.py')
    if too_low:
        sys.exit(f'error: expected higher metrics: {", ".join(too_low)}')


if __name__ == '__main__':
    main()
