"""Train, test and visualize a detector and a segmentor on synthetic images, on a CPU in ten minutes."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from _contact_sheet import contact_sheet
from _processes import run_tool

from deformable_vit.engine import UserError, one_line_errors, read_metrics


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
    Job('Semantic FPN', 'configs/demo/fpn_dpt_shapes.py', {'mIoU': 70.0}),
)


def say(text: str) -> None:
    print(f'\n=== {text}', flush=True)


def train_and_test(job: Job, out: Path) -> tuple[dict[str, float], Path, Path]:
    """Train and test a model; return its metrics, its checkpoint and a contact sheet of its predictions."""
    name = Path(job.config).stem
    work_dir, tested, images = out / name, out / name / 'test', out / name / 'images'
    say(f'{job.name}: training (a few minutes)')
    # No validation during training: the test that follows takes the last checkpoint.
    options = ['randomness.seed=0', 'default_hooks.checkpoint.max_keep_ckpts=1', 'train_cfg.val_interval=100000']
    run_tool('train.py', job.config, '--work-dir', str(work_dir), '--cfg-options', *options)
    checkpoint = Path((work_dir / 'last_checkpoint').read_text().strip())
    say(f'{job.name}: testing on the validation images')
    run_tool(
        'test.py', job.config, str(checkpoint), '--work-dir', str(tested), '--show-dir', str(images), *job.test_options
    )
    metrics = read_metrics(tested)
    sheet = out / f'{name}.png'
    contact_sheet(sorted(p for p in images.rglob('*') if p.suffix in ('.jpg', '.png'))[:12], sheet)
    return metrics, checkpoint, sheet


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out', default='work_dirs/demo', help='directory for logs, checkpoints and images (default: %(default)s)'
    )
    args = parser.parse_args()
    out = Path(args.out).resolve()

    say('drawing the dataset (a few seconds)')
    run_tool('make_shapes.py', 'data/shapes')
    start = time.monotonic()
    results = [(job, *train_and_test(job, out)) for job in JOBS]
    minutes = (time.monotonic() - start) / 60

    say(f'done: trained and tested in {minutes:.1f} minutes')
    missed = []
    for job, metrics, checkpoint, sheet in results:
        reached = ', '.join(f'{key} {metrics[key]:.3g} (at least {low:g})' for key, low in job.minimum.items())
        missed += [f'{job.name} {key}' for key, low in job.minimum.items() if not metrics[key] >= low]
        print(f'{job.name}: {reached}')
        print(f'  images       {sheet}  (left ground truth, right prediction)')
        print(f'               {checkpoint.parent / "images"}  (one by one)')
        print(f'  checkpoint   {checkpoint}')
        print(f'  logs         {checkpoint.parent}/*/*.log')
    print('\nNext: train RetinaNet with PVT-Tiny on COCO (README.md says where the data goes):')
    print('  .venv/bin/python tools/train.py configs/pvt/retinanet_pvt-t_fpn_1x_coco.py')
    if missed:
        raise UserError(f'expected higher metrics: {", ".join(missed)}')


if __name__ == '__main__':
    main()
