"""Check that every combination of backbone and head converges: train small models on synthetic images and test them.

An interrupted run resumes where it stopped. Combinations that were tested are skipped, unless their config has changed.
Writes a table (table.md), and a work directory with log.txt for each combination.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from _trainings import CORES, ROOT, Commands, metrics, run, run_tool, train_and_test
from mmengine.config import Config

CONFIGS = ROOT / 'configs' / 'demo'
# Metric and minimum by the head, as the configs are named, HEAD_BACKBONE_shapes; None requires an improvement only.
HEADS = {
    'retinanet': ('coco/bbox_mAP_50', 0.70),
    'mask-rcnn': ('coco/bbox_mAP_50', 0.80),
    'fpn': ('mIoU', 70.0),
    '': ('accuracy/top1', 90.0),  # classification
    'deformable-detr': ('coco/bbox_mAP_50', 0.60),
    'deformable-detr-refine': ('coco/bbox_mAP_50', 0.60),
    'deformable-detr-refine-twostage': ('coco/bbox_mAP_50', 0.60),
    'deformable-detr-single-scale-dc5': ('coco/bbox_mAP_50', 0.60),
    'dino': ('coco/bbox_mAP_50', 0.60),
    'detr': ('coco/bbox_mAP_50', None),
    'cascade-mask-rcnn': ('coco/bbox_mAP_50', 0.80),
    'upernet': ('mIoU', 70.0),
    'atss': ('coco/bbox_mAP_50', 0.70),
    'gfl': ('coco/bbox_mAP_50', 0.70),
    'sparse-rcnn': ('coco/bbox_mAP_50', 0.60),
    'mask2former': ('coco/segm_mAP_50', 0.60),
    'mask2former-semantic': ('mIoU', 70.0),
}
COMBINATIONS = {
    name: HEADS[name.removesuffix('_shapes').rpartition('_')[0]]
    for name in sorted(file.stem for file in CONFIGS.glob('*.py'))
}


def commands(work_dir: Path) -> Commands:
    """Yield the command lines that train one combination, or resume it, and test it."""
    options = ['randomness.seed=0', 'default_hooks.checkpoint.max_keep_ckpts=1']
    if COMBINATIONS[work_dir.name][1] is not None:  # only the test after training counts
        options.append('train_cfg.val_interval=1000000')
    return train_and_test(CONFIGS / f'{work_dir.name}.py', work_dir, ['--resume', '--cfg-options', *options])


def set_aside(work_dir: Path, config: str) -> None:
    """Rename the work directory of a combination that was trained with another config."""
    kept = work_dir / 'trained_with.py'
    if kept.exists() and kept.read_text() != config:
        work_dir.rename(work_dir.with_name(f'{work_dir.name}_until_{time.strftime("%Y%m%d_%H%M%S")}'))
    work_dir.mkdir(parents=True, exist_ok=True)
    kept.write_text(config)


def is_tested(work_dir: Path) -> bool:
    return any(work_dir.glob('test/*/*.json'))


def first_validation(work_dir: Path, metric: str) -> float:
    """Return a metric of the first validation during training, 0 if it has none."""
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            if f'"{metric}"' in line and line.endswith('}'):  # a killed run leaves half a line
                return json.loads(line)[metric]
    return 0.0


def converges(work_dir: Path) -> bool:
    """Return whether a combination reaches its minimum; without one, whether its test beats its first validation."""
    metric, minimum = COMBINATIONS[work_dir.name]
    reached = metrics(work_dir).get(metric, 0.0)  # mmdet reports none for a detector without detections
    return reached > first_validation(work_dir, metric) if minimum is None else reached >= minimum


def table(work_dirs: list[Path]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        '| config | box AP50 | mask AP50 | mIoU | top-1 | at least | |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    columns = (('coco/bbox_mAP_50', '.3f'), ('coco/segm_mAP_50', '.3f'), ('mIoU', '.1f'), ('accuracy/top1', '.1f'))
    for work_dir in work_dirs:
        found = metrics(work_dir)
        reached = [format(found[key], digits) if key in found else '' for key, digits in columns]
        minimum = COMBINATIONS[work_dir.name][1] or 'improving'
        verdict = 'converges' if converges(work_dir) else '**does not converge**'
        lines.append('| ' + ' | '.join([work_dir.name, *reached, str(minimum), verdict]) + ' |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--out', default='work_dirs/convergence', help='directory for logs and results (default: %(default)s)')
    add('--only', nargs='+', choices=COMBINATIONS, metavar='COMBINATION', help='train these: names in configs/demo')
    add('--jobs', type=int, default=min(CORES, 4), help='parallel trainings (default: %(default)s)')
    args = parser.parse_args()
    out = Path(args.out).resolve()
    chosen = [out / name for name in args.only or COMBINATIONS]
    for work_dir in chosen:
        set_aside(work_dir, Config.fromfile(CONFIGS / f'{work_dir.name}.py').pretty_text)
    run_tool('make_shapes.py', 'data/shapes')
    jobs = {work_dir: commands(work_dir) for work_dir in chosen if not is_tested(work_dir)}
    errors = []
    for work_dir, error in run(jobs, args.jobs):
        if error:
            errors.append(error)  # the others go on
        print(f'{work_dir.name}: {"failed" if error else "done"}', flush=True)
        (out / 'table.md').write_text(table([out / name for name in COMBINATIONS if is_tested(out / name)]))
    tested = [work_dir for work_dir in chosen if is_tested(work_dir)]
    print(table(tested) + str(out / 'table.md'))
    errors += [f'{work_dir.name} does not converge' for work_dir in tested if not converges(work_dir)]
    if errors:
        sys.exit('\n'.join(['error:', *errors]))


if __name__ == '__main__':
    main()
