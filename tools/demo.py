"""Train, test and visualize a detector and a segmentor on synthetic images, in minutes on a CPU."""

import argparse
import os
import signal
import sys
import threading
import time
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from _contact_sheet import contact_sheet
from _processes import run_tool, usable_cores
from _progress import Display
from _training import parallel, train_and_test

from deformable_vit.engine import UserError, one_line_errors

METRICS = {'coco/bbox_mAP_50': 'box AP50', 'coco/segm_mAP_50': 'mask AP50', 'mIoU': 'mIoU'}


@dataclass(frozen=True)
class Job:
    """One model to train and test, and the minimum of its metrics on the validation images."""

    name: str
    config: str
    minimum: dict[str, float]
    test_options: tuple[str, ...] = ()


JOBS = (
    Job(
        'Mask R-CNN',
        'configs/demo/mask-rcnn_dat_shapes.py',
        {'coco/bbox_mAP_50': 0.80, 'coco/segm_mAP_50': 0.75},
        ('--cfg-options', 'default_hooks.visualization.score_thr=0.5'),
    ),
    Job('Semantic FPN', 'configs/demo/fpn_datpp_shapes.py', {'mIoU': 70.0}),
)


def relative(path: Path) -> str:
    return os.path.relpath(path)


def run(
    job: Job, out: Path, seed: int, display: Display, threads: int, stop: threading.Event
) -> tuple[dict[str, float], Path, Path]:
    """Train and test a model; return its metrics, its checkpoint and a contact sheet of its predictions."""
    name = Path(job.config).stem
    images = out / name / 'images'
    # No validation during training: the test that follows takes the last checkpoint.
    options = [f'randomness.seed={seed}', 'default_hooks.checkpoint.max_keep_ckpts=1', 'train_cfg.val_interval=100000']
    metrics, checkpoint = train_and_test(
        job.name,
        job.config,
        out / name,
        display,
        train_options=('--cfg-options', *options),
        test_options=('--show-dir', images, *job.test_options),
        threads=threads,
        stop=stop,
    )
    sheet = out / f'{name}.png'
    contact_sheet(sorted(p for p in images.rglob('*') if p.suffix in ('.jpg', '.png'))[:12], sheet)
    return metrics, checkpoint, sheet


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out', default='work_dirs/demo', help='directory for logs, checkpoints and images (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of both trainings (default: %(default)s)')
    args = parser.parse_args()
    if args.seed < 0:
        raise UserError(f'--seed must not be negative, got {args.seed}')
    out = Path(args.out).resolve()
    # Small models use one core well and two hardly better, so both train at the same time.
    jobs = min(len(JOBS), len(usable_cores()))
    threads = len(usable_cores()) // jobs

    # Exit through the `finally` blocks, which stop the trainings.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    with Display(relax_after=8) as display:
        display.print('Training and testing two models on synthetic images in data/shapes; everything they print is in')
        for job in JOBS:
            display.print(f'  {relative(out / Path(job.config).stem / "log.txt")}')
        run_tool('make_shapes.py', 'data/shapes', log=out / 'make_shapes.log')
        display.warn()
        start = time.monotonic()
        with parallel(lambda job, stop: run(job, out, args.seed, display, threads, stop), JOBS, jobs) as futures:
            for future in as_completed(futures):
                future.result()  # the first failure ends the others
        results = [(job, *future.result()) for future, job in futures.items()]
    minutes = (time.monotonic() - start) / 60

    print(f'\nTrained and tested in {minutes:.1f} minutes:')
    missed = []
    for job, metrics, checkpoint, sheet in results:
        found = {key: metrics.get(key, 0.0) for key in job.minimum}  # mmdet reports none without detections
        reached = [f'{METRICS[key]} {value:.3g} (at least {job.minimum[key]:g})' for key, value in found.items()]
        missed += [f'{job.name} {METRICS[key]}' for key, value in found.items() if not value >= job.minimum[key]]
        print(f'{job.name}: {", ".join(reached)}')
        print(f'  images      {relative(sheet)}  (left ground truth, right prediction)')
        print(f'              {relative(checkpoint.parent / "images")}  (one by one)')
        print(f'  checkpoint  {relative(checkpoint)}')
        print(f'  log         {relative(checkpoint.parent / "log.txt")}')
    name, checkpoint = results[0][0].config, results[0][2]
    page, image = checkpoint.parent / 'attention.html', 'data/shapes/coco/val2017/000001.jpg'
    options = ('--out', page, '--overwrite')
    run_tool('visualize_attention.py', name, checkpoint, image, *options, log=out / 'visualize_attention.log')
    print('\nNext: train RetinaNet with PVT-Tiny on COCO (README.md says where the data goes):')
    print('  .venv/bin/python tools/train.py configs/pvt/retinanet_pvt-t_fpn_1x_coco.py')
    print(f'See where {results[0][0].name} looks, in a browser: {relative(page)}')
    if missed:
        raise UserError(f'expected higher metrics: {", ".join(missed)}')


if __name__ == '__main__':
    main()
