"""Does every pairing of backbone and head learn? Small ones on the built-in shapes, tested on scenes not seen.

Pair by pair: an interrupted run goes on where it stopped, and pairs with a result are not trained again (--again does).
Leaves a table (table.md), the learning curves (curves.png) and each pair's work dir, log.txt and result.json.
"""

import argparse
import inspect
import json
import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
from _jobs import ROOT, run_tool, start_tool
from mmengine.config import Config
from mmengine.runner import Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deformable_vit.engine import UserError, one_line_errors, read_metrics

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
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # the last line of a run that was killed
                continue
            if 'loss' in line:
                # A resumed run repeats what was not saved.
                step = line['iter'] if 'iter' in line else line['step']
                losses = [(s, loss) for s, loss in losses if s < step] + [(step, line['loss'])]
            else:
                validations.append(line)
    return losses, validations


def train(head: Head, backbone: str, out: Path, progress: Progress, threads: int, stop: threading.Event) -> None:
    """Train one pair from the start or from where it was stopped, test it, and leave its result.

    Raises:
        UserError: The training failed, or ``stop`` was set.
    """
    name = head.config(backbone)
    work_dir = out / name
    work_dir.mkdir(parents=True, exist_ok=True)
    config = read_config(name)
    (work_dir / 'trained_with.py').write_text(config.pretty_text)
    limit = config.train_cfg.get('max_iters') or config.train_cfg.max_epochs
    options = ['randomness.seed=0', 'default_hooks.checkpoint.max_keep_ckpts=1']
    if head.minimum is not None:  # what counts is the test at the end
        options.append('train_cfg.val_interval=1000000')
    spent, log_file = work_dir / 'seconds', work_dir / 'log.txt'
    start = time.monotonic() - (float(spent.read_text()) if spent.exists() else 0.0)
    task = progress.add_task(f'{head.title}, {BACKBONES[backbone]}', total=None)

    def call(tool: str, *args: object) -> None:
        with log_file.open('a') as log:
            process = start_tool(tool, f'configs/demo/{name}.py', *args, log=log, threads=threads)
            try:
                while process.poll() is None:
                    if stop.wait(1):
                        raise UserError(f'{name} was stopped')
                    spent.write_text(str(time.monotonic() - start))
                    done, total = steps(log_file, limit)
                    progress.update(task, completed=done, total=total)
            finally:
                process.terminate()
                process.wait()
        if process.returncode:
            raise UserError(f'{name} failed; its messages are in {log_file}')

    try:
        call('train.py', '--work-dir', work_dir, '--resume', '--cfg-options', *options)
        checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
        call('test.py', checkpoint, '--work-dir', work_dir / 'test')
    finally:
        progress.remove_task(task)

    losses, validations = read_log(work_dir)
    measured = read_metrics(work_dir / 'test')
    figures = {k: v for k, v in measured.items() if k.startswith(('coco/', 'mIoU', 'aAcc', 'accuracy/'))}
    # mmdet has no figure at all for a detector that finds nothing.
    figures.setdefault(head.metric, 0.0)
    rose = bool(validations) and figures[head.metric] > validations[0].get(head.metric, 0.0)
    write_result(Result(backbone, head.name, figures, rose, float(spent.read_text()), losses), work_dir)


def write_result(result: Result, work_dir: Path) -> None:
    """Leave a pair's result, whole at once: other threads may be reading."""
    whole = work_dir / 'result.part'
    whole.write_text(json.dumps(asdict(result)))
    whole.rename(work_dir / 'result.json')


def read_config(name: str) -> Config:
    """What mmengine's runner reads of a pair's config, without the variables that went into it."""
    config = Config.fromfile(ROOT / 'configs' / 'demo' / f'{name}.py')
    return Config({key: config[key] for key in inspect.signature(Runner).parameters if key in config})


def set_aside(work_dir: Path, name: str, again: bool) -> None:
    """Move a pair's folder away where it is to be trained anew, or was trained with another config than today's."""
    kept = work_dir / 'trained_with.py'
    if kept.exists() and (again or kept.read_text() != read_config(name).pretty_text):
        work_dir.rename(work_dir.with_name(f'{work_dir.name}_until_{time.strftime("%Y%m%d_%H%M%S")}'))


def finished(out: Path) -> list[tuple[Head, Result]]:
    """The pairs that have a result, in the order of HEADS."""
    files = [(head, out / head.config(backbone) / 'result.json') for head in HEADS for backbone in head.backbones]
    return [(head, Result(**json.loads(file.read_text()))) for head, file in files if file.exists()]


def steps(log: Path, limit: int) -> tuple[int, int | None]:
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
    columns = min(4, len(heads))
    rows = -(-len(heads) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 3.6 * rows), squeeze=False, layout='constrained')
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
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(cores, 4),
        help='trainings at a time, with an equal share of the cores each (default here: %(default)s)',
    )
    args = parser.parse_args()
    if args.list:
        print('\n'.join(names))
        return
    for name in args.only or ():
        if name not in names:
            raise UserError(f'--only: {name} is not one of the pairs; --list shows them')
    if args.jobs < 1:
        raise UserError(f'--jobs must be at least 1, got {args.jobs}')
    out = Path(args.out).resolve()
    wanted = [(h, b) for h in HEADS for b in h.backbones if not args.only or h.config(b) in args.only]

    # Stopped from outside, it takes the training along; the same command goes on from there.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run_tool('make_shapes.py', 'data/shapes')
    for head, backbone in wanted:
        set_aside(out / head.config(backbone), head.config(backbone), args.again)
    broken: list[str] = []
    stop = threading.Event()
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    pool = ThreadPoolExecutor(args.jobs)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        overall = progress.add_task('pairs', total=len(wanted))

        def learn(head: Head, backbone: str) -> None:
            if not (out / head.config(backbone) / 'result.json').exists():
                train(head, backbone, out, progress, max(1, cores // args.jobs), stop)

        futures = {pool.submit(learn, *pair): pair for pair in wanted}
        try:
            for future in as_completed(futures):
                head, backbone = futures[future]
                if isinstance(error := future.exception(), UserError):  # the other pairs can still be trained
                    broken.append(str(error))
                    continue
                future.result()
                progress.advance(overall)
                (result,) = [r for h, r in finished(out) if h == head and r.backbone == backbone]
                reached = f'{head.metric} {result.figures[head.metric]:.3g} in {result.seconds / 60:.1f} minutes'
                progress.console.print(f'{head.title}, {BACKBONES[backbone]}: {reached}')
                if not result.passed(head):
                    broken.append(f'{head.config(backbone)} does not learn')
                (out / 'table.md').write_text(table(finished(out)))
                plot(finished(out), out / 'curves.png')
        except KeyboardInterrupt as error:
            raise UserError('stopped; the same command goes on from here') from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # first, or another one starts when the one that runs stops
            stop.set()
            pool.shutdown()

    print(table(finished(out)))
    print(f'table   {out / "table.md"}\ncurves  {out / "curves.png"}')
    if broken:
        raise UserError('; '.join(broken))


if __name__ == '__main__':
    main()
