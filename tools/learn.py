"""Does every pairing of backbone and head learn? Small ones on the built-in shapes, tested on scenes not seen.

Pair by pair: an interrupted run goes on where it stopped, and pairs with a result are not trained again (--again does).
Leaves a table (table.md), the learning curves (curves.png) and each pair's work dir, log.txt and result.json.
"""

import argparse
import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
from _jobs import ROOT, run_tool, start_tool
from mmengine.config import Config
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deformable_vit.engine import UserError, one_line_errors

matplotlib.use('Agg')
from matplotlib import pyplot as plt

BACKBONES = {'pvt': 'PVT', 'pvtv2': 'PVT v2', 'dpt': 'DPT', 'dat': 'DAT', 'datpp': 'DAT++'}


@dataclass(frozen=True)
class Head:
    """A head, the figure it is judged by and what that has to reach; None: it only has to rise."""

    name: str
    title: str
    metric: str
    minimum: float | None
    backbones: tuple[str, ...] = ('dat',)

    def config(self, backbone: str) -> str:
        return f'{self.name}_{backbone}_shapes' if self.name else f'{backbone}_shapes'


ALL = tuple(BACKBONES)
HEADS = (
    Head('retinanet', 'RetinaNet', 'coco/bbox_mAP_50', 0.70, ALL),
    Head('mask-rcnn', 'Mask R-CNN', 'coco/bbox_mAP_50', 0.80, ALL),
    Head('fpn', 'Semantic FPN', 'mIoU', 70.0, ALL),
    Head('', 'classification', 'accuracy/top1', 90.0, ALL),
    Head('deformable-detr', 'Deformable DETR', 'coco/bbox_mAP_50', 0.60, ALL),
    Head('deformable-detr-refine', 'Deformable DETR, refinement', 'coco/bbox_mAP_50', 0.60),
    Head('deformable-detr-refine-twostage', 'Deformable DETR, two-stage', 'coco/bbox_mAP_50', 0.60),
    Head('dino', 'DINO', 'coco/bbox_mAP_50', 0.60),
    Head('detr', 'DETR', 'coco/bbox_mAP_50', None),
    Head('cascade-mask-rcnn', 'Cascade Mask R-CNN', 'coco/bbox_mAP_50', 0.80),
    Head('upernet', 'UPerNet', 'mIoU', 70.0),
)


@dataclass(frozen=True)
class Result:
    """What one pair reached."""

    backbone: str
    head: str
    figures: dict[str, float]
    rose: bool
    seconds: float
    losses: list[tuple[int, float]]

    def passed(self, head: Head) -> bool:
        return self.rose if head.minimum is None else self.figures[head.metric] >= head.minimum


def read_log(work_dir: Path) -> tuple[list[tuple[int, float]], list[dict[str, float]]]:
    """(step, loss) of the training and the figures of each validation, in order, over resumed runs too."""
    losses, validations, step = [], [], 0
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in map(json.loads, file.read_text().splitlines()):
            if 'loss' in line:
                # A resumed run repeats what was not saved.
                step = line['iter'] if 'iter' in line else line['step']
                losses = [(s, loss) for s, loss in losses if s < step] + [(step, line['loss'])]
            else:
                validations.append(line)
    return losses, validations


def train(head: Head, backbone: str, out: Path, progress: Progress) -> Result:
    """Train one pair from the start or from where it was stopped; what the last validation measured is its result."""
    name = head.config(backbone)
    work_dir = out / name
    work_dir.mkdir(parents=True, exist_ok=True)
    spent = work_dir / 'seconds'
    before = float(spent.read_text()) if spent.exists() else 0.0
    start = time.monotonic()
    task = progress.add_task(f'{head.title}, {BACKBONES[backbone]}', total=None)
    train_cfg = Config.fromfile(ROOT / 'configs' / 'demo' / f'{name}.py').train_cfg
    limit = train_cfg.get('max_iters') or train_cfg.max_epochs
    options = ['randomness.seed=0', 'default_hooks.checkpoint.max_keep_ckpts=1']
    with (work_dir / 'log.txt').open('a') as log:
        process = start_tool(
            'train.py',
            f'configs/demo/{name}.py',
            '--work-dir',
            work_dir,
            '--resume',
            '--cfg-options',
            *options,
            log=log,
        )
        try:
            while process.poll() is None:
                time.sleep(1)
                spent.write_text(str(before + time.monotonic() - start))
                done, total = _steps(work_dir / 'log.txt', limit)
                progress.update(task, completed=done, total=total)
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise UserError(f'{name} failed; its messages are in {work_dir / "log.txt"}')
    progress.remove_task(task)

    losses, validations = read_log(work_dir)
    figures = {k: v for k, v in validations[-1].items() if k.startswith(('coco/', 'mIoU', 'aAcc', 'accuracy/'))}
    rose = len(validations) > 1 and validations[-1][head.metric] > validations[0].get(head.metric, 0.0)
    result = Result(backbone, head.name, figures, rose, float(spent.read_text()), losses)
    (work_dir / 'result.json').write_text(json.dumps(asdict(result)))
    return result


def _steps(log: Path, limit: int) -> tuple[int, int | None]:
    """Steps done and in all, from the log's last line of training and the config's epochs or steps."""
    found = re.findall(r'\(train\)\s+(?:\[(\d+)\])?\[\s*(\d+)/(\d+)\]', log.read_text())
    if not found:
        return 0, None
    epoch, step, per_epoch = found[-1]
    return (int(epoch) - 1) * int(per_epoch) + int(step) if epoch else int(step), limit * (
        int(per_epoch) if epoch else 1
    )


def table(results: list[tuple[Head, Result]]) -> str:
    """The results as Markdown."""
    lines = [
        '| head | backbone | box AP50 | mask AP50 | mIoU | top-1 | at least | minutes | |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    columns = (('coco/bbox_mAP_50', '.3f'), ('coco/segm_mAP_50', '.3f'), ('mIoU', '.1f'), ('accuracy/top1', '.1f'))
    for head, result in results:
        figures = [format(result.figures[k], f) if k in result.figures else '' for k, f in columns]
        minimum = 'rising' if head.minimum is None else f'{head.minimum:g}'
        verdict = 'learns' if result.passed(head) else '**does not learn**'
        cells = [head.title, BACKBONES[result.backbone], *figures, minimum, f'{result.seconds / 60:.1f}', verdict]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def plot(results: list[tuple[Head, Result]], file: Path) -> None:
    """The training losses, a panel a head, and what each backbone reached in the legend."""
    heads = list(dict.fromkeys(head for head, _ in results))
    rows = -(-len(heads) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(16, 3.6 * rows), squeeze=False, layout='constrained')
    for axis in axes.flat[len(heads) :]:
        axis.axis('off')
    for axis, head in zip(axes.flat, heads, strict=False):
        for other, result in results:
            if other == head:
                label = f'{BACKBONES[result.backbone]} {result.figures[head.metric]:.3g}'
                axis.plot(*zip(*result.losses, strict=True), label=label)
        axis.set(title=head.title, xlabel='step', ylabel='training loss', yscale='log')
        axis.legend(title=head.metric, fontsize='small')
    figure.savefig(file, dpi=80)
    plt.close(figure)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default='work_dirs/learn', help='where everything goes (default: %(default)s)')
    names = [head.config(backbone) for head in HEADS for backbone in head.backbones]
    parser.add_argument('--only', nargs='+', metavar='PAIR', help='some of the pairs; --list shows their names')
    parser.add_argument('--list', action='store_true', help='list the pairs and stop')
    parser.add_argument('--again', action='store_true', help='train pairs that have a result again')
    args = parser.parse_args()
    if args.list:
        print('\n'.join(names))
        return
    for name in args.only or ():
        if name not in names:
            raise UserError(f'--only: {name} is not one of the pairs; --list shows them')
    out = Path(args.out).resolve()
    wanted = [(h, b) for h in HEADS for b in h.backbones if not args.only or h.config(b) in args.only]

    run_tool('make_shapes.py', 'data/shapes')
    results: list[tuple[Head, Result]] = []
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.completed}/{task.total}'))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        overall = progress.add_task('pairs', total=len(wanted))
        for head, backbone in wanted:
            work_dir = out / head.config(backbone)
            found = work_dir / 'result.json'
            if args.again and work_dir.exists():
                shutil.move(work_dir, work_dir.with_name(f'{work_dir.name}_{time.strftime("%Y%m%d_%H%M%S")}'))
            known = Result(**json.loads(found.read_text())) if found.exists() else None
            result = known or train(head, backbone, out, progress)
            results.append((head, result))
            progress.advance(overall)
            reached = f'{head.metric} {result.figures[head.metric]:.3g} in {result.seconds / 60:.1f} minutes'
            progress.console.print(f'{head.title}, {BACKBONES[backbone]}: {reached}')
            (out / 'table.md').write_text(table(results))
            plot(results, out / 'curves.png')

    print(table(results))
    print(f'table   {out / "table.md"}\ncurves  {out / "curves.png"}')
    missed = [head.config(result.backbone) for head, result in results if not result.passed(head)]
    if missed:
        raise UserError(f'these pairs do not learn: {", ".join(missed)}')


if __name__ == '__main__':
    main()
