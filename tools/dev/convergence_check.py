"""Check that every combination of backbone and head converges: train small models on synthetic images and test them.

An interrupted run resumes where it stopped. Combinations with a result are skipped, unless their config has changed or
--again is given. Writes a table (table.md), and per combination a work directory with log.txt and result.json.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from _training import CORES, ROOT, ToolError, Trainings, call
from mmengine.config import Config

BACKBONES = {'pvt': 'PVT', 'pvtv2': 'PVT v2', 'dpt': 'DPT', 'dat': 'DAT', 'datpp': 'DAT++'}


@dataclass(frozen=True)
class Head:
    """A head, its backbones, and the minimum of its metric; ``None`` requires an improvement during training only."""

    name: str
    title: str
    metric: str
    minimum: float | None
    backbones: tuple[str, ...] = ('dat',)


_ALL = tuple(BACKBONES)
HEADS = (
    Head('retinanet', 'RetinaNet', 'coco/bbox_mAP_50', 0.70, _ALL),
    Head('mask-rcnn', 'Mask R-CNN', 'coco/bbox_mAP_50', 0.80, _ALL),
    Head('fpn', 'Semantic FPN', 'mIoU', 70.0, _ALL),
    Head('', 'classification', 'accuracy/top1', 90.0, _ALL),
    Head('deformable-detr', 'Deformable DETR', 'coco/bbox_mAP_50', 0.60, _ALL),
    Head('deformable-detr-refine', 'Deformable DETR, refinement', 'coco/bbox_mAP_50', 0.60),
    Head('deformable-detr-refine-twostage', 'Deformable DETR, two-stage', 'coco/bbox_mAP_50', 0.60),
    Head('dino', 'DINO', 'coco/bbox_mAP_50', 0.60),
    Head('detr', 'DETR', 'coco/bbox_mAP_50', None),
    Head('cascade-mask-rcnn', 'Cascade Mask R-CNN', 'coco/bbox_mAP_50', 0.80),
    Head('upernet', 'UPerNet', 'mIoU', 70.0),
    Head('atss', 'ATSS', 'coco/bbox_mAP_50', 0.70, ('pvtv2',)),
    Head('gfl', 'GFL', 'coco/bbox_mAP_50', 0.70, ('pvtv2',)),
    Head('sparse-rcnn', 'Sparse R-CNN', 'coco/bbox_mAP_50', 0.60, ('pvtv2',)),
    Head('deformable-detr-single-scale-dc5', 'Deformable DETR, single-scale DC5', 'coco/bbox_mAP_50', 0.60),
    Head('mask2former', 'Mask2Former, instances', 'coco/segm_mAP_50', 0.60, ('datpp',)),
    Head('mask2former-semantic', 'Mask2Former, semantic', 'mIoU', 70.0, ('datpp',)),
)
# By the name of the demo config.
COMBINATIONS = {
    f'{head.name}_{backbone}_shapes'.lstrip('_'): (head, backbone) for head in HEADS for backbone in head.backbones
}


def converges(name: str, result: dict) -> bool:
    """Return whether a combination reaches its minimum; without one, whether its test beats its first validation."""
    head = COMBINATIONS[name][0]
    reached: float = result['metrics'][head.metric]
    return reached > result['first_validation'] if head.minimum is None else reached >= head.minimum


def first_validation(work_dir: Path, metric: str) -> float:
    """Return a metric of the first validation during training, 0 if it has none."""
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            if f'"{metric}"' in line and line.endswith('}'):  # a killed run leaves half a line
                return json.loads(line)[metric]
    return 0.0


def train(trainings: Trainings, name: str, out: Path) -> dict:
    """Train one combination, or resume it, test it, and write its result."""
    (head, backbone), work_dir, start = COMBINATIONS[name], out / name, time.monotonic()
    options = ['randomness.seed=0', 'default_hooks.checkpoint.max_keep_ckpts=1']
    if head.minimum is not None:  # only the test after training counts
        options.append('train_cfg.val_interval=1000000')
    title, config = f'{head.title}, {BACKBONES[backbone]}', f'configs/demo/{name}.py'
    tested, _ = trainings.train_and_test(title, config, work_dir, ('--resume', '--cfg-options', *options))
    metrics = {k: v for k, v in tested.items() if k.startswith(('coco/', 'mIoU', 'aAcc', 'accuracy/'))}
    metrics.setdefault(head.metric, 0.0)  # mmdet reports no metric for a detector without detections
    minutes = (time.monotonic() - start) / 60  # of the last run, if it was resumed
    result = dict(metrics=metrics, first_validation=first_validation(work_dir, head.metric), minutes=minutes)
    (work_dir / 'result.json').write_text(json.dumps(result))
    return result


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
        '| head | backbone | box AP50 | mask AP50 | mIoU | top-1 | at least | minutes | |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    columns = (('coco/bbox_mAP_50', '.3f'), ('coco/segm_mAP_50', '.3f'), ('mIoU', '.1f'), ('accuracy/top1', '.1f'))
    for name, result in results.items():
        head, backbone = COMBINATIONS[name]
        metrics = [format(result['metrics'][k], f) if k in result['metrics'] else '' for k, f in columns]
        minimum = 'improving' if head.minimum is None else f'{head.minimum:g}'
        verdict = 'converges' if converges(name, result) else '**does not converge**'
        cells = [head.title, BACKBONES[backbone], *metrics, minimum, f'{result["minutes"]:.1f}', verdict]
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
        config = Config.fromfile(ROOT / 'configs' / 'demo' / f'{name}.py').pretty_text
        set_aside(out / name, config, args.again)
    waiting = [name for name in chosen if not (out / name / 'result.json').exists()]
    errors = []
    with Trainings(args.jobs) as trainings:
        trainings.run('make_shapes.py', 'data/shapes', log=out / 'make_shapes.log')
        for name, future in trainings.results(lambda name: train(trainings, name, out), waiting, seconds=600):
            if isinstance(error := future.exception(), ToolError):
                errors.append(str(error))  # the others go on
                continue
            head, result = COMBINATIONS[name][0], future.result()
            print(f'{name}: {head.metric} {result["metrics"][head.metric]:.3g} in {result["minutes"]:.1f} minutes')
            (out / 'table.md').write_text(table(read_results(out)))
    results = read_results(out)
    errors += [f'{name} does not converge' for name in chosen if name in results and not converges(name, results[name])]
    print(table(results) + str(out / 'table.md'))
    if errors:
        sys.exit('\n'.join(['error:', *errors]))


if __name__ == '__main__':
    call(main)
