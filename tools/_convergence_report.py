"""Requirements and results of the convergence check, and a table and a plot of them."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

BACKBONES = {'pvt': 'PVT', 'pvtv2': 'PVT v2', 'dpt': 'DPT', 'dat': 'DAT', 'datpp': 'DAT++'}


@dataclass(frozen=True)
class Head:
    """A head, its backbones, and the minimum of its metric; ``None`` requires an improvement during training only."""

    name: str
    title: str
    metric: str
    minimum: float | None
    backbones: tuple[str, ...] = ('dat',)

    def config(self, backbone: str) -> str:
        """Return the name of the demo config of a combination."""
        return f'{self.name}_{backbone}_shapes' if self.name else f'{backbone}_shapes'


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


@dataclass(frozen=True)
class Result:
    """Metrics of one combination.

    Attributes:
        improved: Whether the test beats the first validation.
        seconds: Of training and testing.
        losses: (iteration, loss).
    """

    backbone: str
    head: str
    metrics: dict[str, float]
    improved: bool
    seconds: float
    losses: list[tuple[int, float]]

    def converges(self, head: Head) -> bool:
        return self.improved if head.minimum is None else self.metrics[head.metric] >= head.minimum


def combinations() -> Iterator[tuple[Head, str]]:
    """Yield (head, backbone), in the order of the table."""
    for head in HEADS:
        for backbone in head.backbones:
            yield head, backbone


def read_log(work_dir: Path) -> tuple[list[tuple[int, float]], list[dict[str, float]]]:
    """Return the losses of training, (iteration, loss), and the metrics of each validation, over all resumed runs."""
    losses, validations = [], []
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # a killed run leaves half a line
                continue
            if 'loss' in line:
                # A resumed run repeats the iterations since the last checkpoint.
                iteration = line['iter'] if 'iter' in line else line['step']
                losses = [(i, loss) for i, loss in losses if i < iteration] + [(iteration, line['loss'])]
            else:
                validations.append(line)
    return losses, validations


def write_result(result: Result, work_dir: Path) -> None:
    """Write ``result.json`` atomically: other threads may be reading it."""
    partial = work_dir / 'result.part'
    partial.write_text(json.dumps(asdict(result)))
    partial.rename(work_dir / 'result.json')


def read_results(out: Path) -> list[tuple[Head, Result]]:
    """Return the combinations that have a result, in the order of the table."""
    files = [(head, out / head.config(backbone) / 'result.json') for head, backbone in combinations()]
    return [(head, Result(**json.loads(file.read_text()))) for head, file in files if file.exists()]


def table(results: list[tuple[Head, Result]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        '| head | backbone | box AP50 | mask AP50 | mIoU | top-1 | at least | minutes | |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    columns = (('coco/bbox_mAP_50', '.3f'), ('coco/segm_mAP_50', '.3f'), ('mIoU', '.1f'), ('accuracy/top1', '.1f'))
    for head, result in results:
        metrics = [format(result.metrics[k], f) if k in result.metrics else '' for k, f in columns]
        minimum = 'improving' if head.minimum is None else f'{head.minimum:g}'
        verdict = 'converges' if result.converges(head) else '**does not converge**'
        cells = [head.title, BACKBONES[result.backbone], *metrics, minimum, f'{result.seconds / 60:.1f}', verdict]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def plot(results: list[tuple[Head, Result]], file: Path) -> None:
    """Plot the training losses, one panel per head, with each backbone's metric in the legend."""
    heads = list(dict.fromkeys(head for head, _ in results))
    columns = min(4, len(heads))
    rows = -(-len(heads) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 3.6 * rows), squeeze=False, layout='constrained')
    for axis in axes.flat[len(heads) :]:
        axis.axis('off')
    for axis, head in zip(axes.flat, heads, strict=False):
        for other, result in results:
            if other == head:
                label = f'{BACKBONES[result.backbone]} {result.metrics[head.metric]:.3g}'
                axis.plot(*zip(*result.losses, strict=True), label=label)
        axis.set(title=head.title, xlabel='iteration', ylabel='training loss', yscale='log')
        axis.legend(title=head.metric, fontsize='small')
    figure.savefig(file, dpi=80)
    plt.close(figure)
