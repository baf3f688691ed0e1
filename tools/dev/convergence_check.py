"""Check that every combination of backbone and head converges: train small models on synthetic images and test them.

An interrupted run resumes where it stopped. Combinations with a result are skipped, unless their config has changed or
--again is given. Writes a table (table.md), and per combination a work directory with log.txt and result.json.
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


def converges(name: str, result: dict) -> bool:
    """Return whether a combination reaches its minimum; without one, whether its test beats its first validation."""
    metric, minimum = COMBINATIONS[name]
    reached: float = result['metrics'][metric]
    return reached > result['first_validation'] if minimum is None else reached >= minimum


def first_validation(work_dir: Path, metric: str) -> float:
    """Return a metric of the first validation during training, 0 if it has none."""
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            if f'"{metric}"' in line and line.endswith('}'):  # a killed run leaves half a line
                return json.loads(line)[metric]
    return 0.0


def commands(name: str, out: Path) -> Commands:
    """Yield the command lines that train one combination, or resume it, and test it; then write its result."""
    (metric, minimum), work_dir, start = COMBINATIONS[name], out / name, time.monotonic()
    options = ['randomness.seed=0', 'default_hooks.checkpoint.max_keep_ckpts=1']
    if minimum is not None:  # only the test after training counts
        options.append('train_cfg.val_interval=1000000')
    yield from train_and_test(CONFIGS / f'{name}.py', work_dir, ['--resume', '--cfg-options', *options])
    found = {k: v for k, v in metrics(work_dir).items() if k.startswith(('coco/', 'mIoU', 'aAcc', 'accuracy/'))}
    found.setdefault(metric, 0.0)  # mmdet reports no metric for a detector without detections
    minutes = (time.monotonic() - start) / 60  # of the last run, if it was resumed
    result = dict(metrics=found, first_validation=first_validation(work_dir, metric), minutes=minutes)
    (work_dir / 'result.json').write_text(json.dumps(result))


def set_aside(work_dir: Path, config: str, again: bool) -> None:
    """Rename the work directory of a combination that is trained again, or that was trained with another config."""
    kept = work_dir / 'trained_with.py'
    if kept.exists() and (again or kept.read_text() != config):
        work_dir.rename(work_dir.with_name(f'{work_dir.name}_until_{time.strftime("%Y%m%d_%H%M%S")}'))
    work_dir.mkdir(parents=True, exist_ok=True)
    kept.write_text(config)


def read_results(out: Path) -> dict[str, dict]:
    """Return the results that there are, by combination, in the order of the table."""
    files = {name: out / name / 'result.json' for name in COMBINATIONS}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def table(results: dict[str, dict]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        '| config | box AP50 | mask AP50 | mIoU | top-1 | at least | minutes | |',
        '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    columns = (('coco/bbox_mAP_50', '.3f'), ('coco/segm_mAP_50', '.3f'), ('mIoU', '.1f'), ('accuracy/top1', '.1f'))
    for name, result in results.items():
        reached = [format(result['metrics'][k], f) if k in result['metrics'] else '' for k, f in columns]
        minimum = COMBINATIONS[name][1] or 'improving'
        verdict = 'converges' if converges(name, result) else '**does not converge**'
        cells = [name, *reached, str(minimum), f'{result["minutes"]:.1f}', verdict]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--out', default='work_dirs/convergence', help='directory for logs and results (default: %(default)s)'
    )
    parser.add_argument(
        '--only', nargs='+', choices=COMBINATIONS, metavar='COMBINATION', help='train these; --list shows the names'
    )
    parser.add_argument('--list', action='store_true', help='list the combinations and exit')
    parser.add_argument('--again', action='store_true', help='train combinations that have a result again')
    parser.add_argument('--jobs', type=int, default=min(CORES, 4), help='parallel trainings (default: %(default)s)')
    args = parser.parse_args()
    if args.list:
        print('\n'.join(COMBINATIONS))
        return
    out = Path(args.out).resolve()
    chosen = args.only or list(COMBINATIONS)
    for name in chosen:
        config = Config.fromfile(CONFIGS / f'{name}.py').pretty_text
        set_aside(out / name, config, args.again)
    waiting = [name for name in chosen if not (out / name / 'result.json').exists()]
    run_tool('make_shapes.py', 'data/shapes')
    errors = []
    for work_dir, error in run({out / name: commands(name, out) for name in waiting}, args.jobs, seconds=600):
        if error:
            errors.append(error)  # the others go on
            continue
        print(f'{work_dir.name}: done', flush=True)
        (out / 'table.md').write_text(table(read_results(out)))
    results = read_results(out)
    errors += [f'{name} does not converge' for name in chosen if name in results and not converges(name, results[name])]
    print(table(results) + str(out / 'table.md'))
    if errors:
        sys.exit('\n'.join(['error:', *errors]))


if __name__ == '__main__':
    main()
