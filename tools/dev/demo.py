"""Train, test and visualize a detector and a segmentor on synthetic images, in minutes on a CPU."""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from _trainings import CORES, last_checkpoint, metrics, run, run_tool, train_and_test
from matplotlib import pyplot as plt

matplotlib.use('Agg')

METRICS = {'coco/bbox_mAP_50': 'box AP50', 'coco/segm_mAP_50': 'mask AP50', 'mIoU': 'mIoU'}


@dataclass(frozen=True)
class Job:
    """One model to train and test, and the minimum of its metrics on the validation images."""

    title: str
    config: str
    minimum: dict[str, float]
    test_options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return Path(self.config).stem


JOBS = (
    Job(
        'Mask R-CNN',
        'configs/demo/mask-rcnn_dat_shapes.py',
        {'coco/bbox_mAP_50': 0.80, 'coco/segm_mAP_50': 0.75},
        ('--cfg-options', 'default_hooks.visualization.score_thr=0.5'),
    ),
    Job('Semantic FPN', 'configs/demo/fpn_dat-pp_shapes.py', {'mIoU': 70.0}),
)


def contact_sheet(files: list[Path], out: Path, columns: int = 3) -> None:
    """Write images in a grid, row by row."""
    rows = -(-len(files) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.8 * columns, 2.6 * rows), layout='constrained')
    for axis in axes.flat:
        axis.axis('off')
    for axis, file in zip(axes.flat, files, strict=False):
        axis.imshow(plt.imread(file))
    figure.savefig(out, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='work_dirs/demo', help='directory for all results (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of both trainings (default: %(default)s)')
    args = parser.parse_args()
    out = Path(args.out).resolve()
    jobs = {}
    for job in JOBS:
        # No validation during training: the test that follows takes the last checkpoint.
        options = ('--cfg-options', f'randomness.seed={args.seed}', 'train_cfg.val_interval=100000')
        show = ('--show-dir', out / job.name / 'images', *job.test_options)
        jobs[out / job.name] = train_and_test(job.config, out / job.name, options, show)

    run_tool('make_shapes.py', 'data/shapes')
    print('Training and testing two models; everything they print is in')
    for work_dir in jobs:
        print(f'  {os.path.relpath(work_dir / "log.txt")}', flush=True)
    start = time.monotonic()
    # Small models use one core well and two hardly better, so both train at the same time.
    for work_dir, error in run(jobs, min(len(JOBS), CORES), seconds=60):
        if error:
            sys.exit(f'error: {error}')  # and end the other
        print(f'{work_dir.name}: done in {(time.monotonic() - start) / 60:.1f} minutes', flush=True)

    missed = []
    for job in JOBS:
        found = {key: metrics(out / job.name).get(key, 0.0) for key in job.minimum}  # none without detections
        missed += [f'{job.title} {METRICS[key]}' for key, value in found.items() if not value >= job.minimum[key]]
        images = sorted(p for p in (out / job.name / 'images').rglob('*') if p.suffix in ('.jpg', '.png'))
        contact_sheet(images[:12], out / f'{job.name}.png')
        reached = [f'{METRICS[key]} {value:.3g} (at least {job.minimum[key]:g})' for key, value in found.items()]
        print(f'\n{job.title}: {", ".join(reached)}')
        print(f'  images      {os.path.relpath(out / job.name)}.png  (left ground truth, right prediction)')
        print(f'  checkpoint  {os.path.relpath(last_checkpoint(out / job.name))}')
    config, work_dir, image = JOBS[0].config, out / JOBS[0].name, 'data/shapes/coco/val2017/000001.jpg'
    page = work_dir / 'attention.html'
    run_tool('visualize_attention.py', config, last_checkpoint(work_dir), image, '--out', page, '--overwrite')
    print(f'\nSee where {JOBS[0].title} looks, in a browser: {os.path.relpath(page)}')
    print('Next: train RetinaNet with PVT-Tiny on COCO (README.md says where the data goes):')
    print('  .venv/bin/python tools/train.py configs/pvt/retinanet_pvt-t_fpn_1x_coco.py')
    if missed:
        sys.exit(f'error: expected higher metrics: {", ".join(missed)}')


if __name__ == '__main__':
    main()
