"""Compare backbones: time of forward and of a training iteration, and peak memory, on the CPU or on a CUDA device.

A model is a name of --list, or a config file, whose backbone is measured. MODEL:BACKEND selects the backend of its ops:
MODEL:reference is the plain PyTorch implementation; deformable_vit.ops.backends lists the others. Times come from one
process that runs all models in turns, peak memory from a new process for each model, mode and size.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import matplotlib
import torch
from _machine import OtherProcesses, device_name
from _measure import ZOO, Case, Measurement, measure_times, parse_model
from _processes import TOOLS
from matplotlib.backend_bases import FigureCanvasBase
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deformable_vit.engine import UserError, one_line_errors

matplotlib.use('Agg')
from matplotlib import pyplot as plt

# Rows of the comparison below the table, if both models were measured.
VERSUS = (
    ('dat-t', 'dat-t:reference'),
    ('dat-t', 'swin-t'),
    ('dat-t-pp', 'dat-t-pp:reference'),
    ('pvt-t', 'mmdet-pvt-t'),
    ('dpt-t', 'dpt-t:reference'),
    ('attention', 'attention:reference'),
)
DEFAULT = list(dict.fromkeys(name for row in VERSUS[:-1] for name in row))
DTYPES = ('float32', 'float16', 'bfloat16')
# Mean number of cores that other processes may keep busy before the results are called unreliable.
MAX_BUSY_CORES = 0.1


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'models',
        nargs='*',
        metavar='MODEL',
        help=f'NAME[:BACKEND] or CONFIG[:BACKEND] (default: {" ".join(DEFAULT)})',
    )
    parser.add_argument('--list', action='store_true', help='list the names and exit')
    parser.add_argument(
        '--shape', nargs='+', default=['800x1344'], metavar='HxW', help='image sizes in pixels (default: 800x1344)'
    )
    parser.add_argument('--batch', type=int, nargs='+', default=[1], help='batch sizes (default: 1)')
    parser.add_argument('--dtype', nargs='+', choices=DTYPES, default=['float32'], help='below float32 by autocast')
    parser.add_argument('--mode', nargs='+', choices=('forward', 'training'), default=['forward', 'training'])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--threads', type=int, help="threads on the CPU (default: torch's)")
    parser.add_argument('--compile', action='store_true', help='use torch.compile; "first call" includes compiling')
    parser.add_argument('--warmup', type=int, default=1, help='turns that do not count, before the others (default: 1)')
    parser.add_argument('--repeats', type=int, default=5, help='turns that count (default: 5)')
    parser.add_argument('--no-memory', action='store_true', help='do not measure the peak memory')
    parser.add_argument('--json', metavar='FILE', help='write all results to a new file')
    parser.add_argument('--plot', metavar='FILE', help='plot time and memory against pixels in a new file')
    return parser.parse_args()


def parse_shape(text: str) -> tuple[int, int]:
    """Parse ``HxW``, or ``N`` for a square."""
    sizes = text.lower().split('x')
    if len(sizes) > 2 or not all(size.isdigit() and int(size) >= 32 for size in sizes):
        raise UserError(f'--shape {text}: give a height and a width of at least 32 pixels, such as 800x1344')
    return int(sizes[0]), int(sizes[-1])


def list_cases(args: argparse.Namespace) -> list[list[Case]]:
    """Return one list of cases per size, batch, dtype and mode; the cases of a list run in turns.

    Raises:
        UserError: An argument is invalid.
    """
    for name, least in (('warmup', 0), ('repeats', 1)):
        if getattr(args, name) < least:
            raise UserError(f'--{name} must be at least {least}, got {getattr(args, name)}')
    if min(args.batch) < 1 or (args.threads is not None and args.threads < 1):
        raise UserError(f'--batch and --threads must be at least 1, got {args.batch} and {args.threads}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no CUDA device')
    for file in (args.json, args.plot):
        if file and not Path(file).absolute().parent.is_dir():
            raise UserError(f'{file}: its directory does not exist')
        if file and (Path(file).is_file() or Path(file).is_dir()):  # not a device such as /dev/stdout
            raise UserError(f'{file} exists; choose another file')
    if args.json and args.plot and Path(args.json).resolve() == Path(args.plot).resolve():
        raise UserError(f'--json and --plot both name {args.json}')
    formats = FigureCanvasBase.get_supported_filetypes()
    if args.plot and Path(args.plot).suffix[1:] not in formats:
        raise UserError(f'--plot {args.plot}: the file must end with one of {", ".join(formats)}')
    models = [parse_model(text) for text in args.models or DEFAULT]
    sizes = [parse_shape(text) for text in args.shape]
    return [
        [Case(*model, mode, *size, batch, dtype, args.device, args.compile) for model in models]
        for size in sizes
        for batch in args.batch
        for dtype in args.dtype
        for mode in args.mode
    ]


def add_peak(result: Measurement, threads: int) -> None:
    """Set the peak memory of a measurement, or its error."""
    command = [sys.executable, str(TOOLS / '_peak.py'), json.dumps(asdict(result.case)), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        result.peak = float(done.stdout.split()[-1])
    else:
        lines = done.stderr.strip().splitlines() or ['no message']
        result.error = f'no peak memory: {lines[-1][:200]} (exit status {done.returncode})'


def table(results: list[Measurement]) -> str:
    """Return the results as a Markdown table; the range is from the fastest to the slowest repeat."""
    lines = [
        '| model | image | batch | dtype | mode | seconds | range | first call | peak MiB |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    for r in results:
        c = r.case
        if r.seconds:
            times = [f'{r.median:.4g}', f'{min(r.seconds):.4g} to {max(r.seconds):.4g}', f'{r.first:.3g}']
        else:
            times = [r.error, '', '']
        peak = '' if r.peak is None else f'{r.peak:.0f}'
        cells = [c.title, f'{c.height} x {c.width}', str(c.batch), c.dtype, c.mode]
        lines.append('| ' + ' | '.join([*cells, *times, peak]) + ' |')
    return '\n'.join(lines)


def comparison(results: list[Measurement]) -> str:
    """Return the ratios of models under the same conditions as a Markdown table; empty if there are none."""
    lines = []
    conditions = {(r.case.title, *_condition(r.case)): r for r in results}
    for name, other in VERSUS:
        for condition in dict.fromkeys(_condition(r.case) for r in results):
            a, b = conditions.get((name, *condition)), conditions.get((other, *condition))
            if a and b and a.seconds and b.seconds:
                mode, height, width, batch, dtype = condition
                memory = '' if a.peak is None or b.peak is None else f'{a.peak / b.peak:.2f}'
                cells = [f'{name} vs. {other}', f'{height} x {width}', str(batch), dtype, mode]
                cells += [f'{b.median / a.median:.2f}', f'{a.median / b.median:.2f}', memory]
                lines.append('| ' + ' | '.join(cells) + ' |')
    if not lines:
        return ''
    head = '| | image | batch | dtype | mode | speedup | time ratio | memory ratio |'
    return '\n'.join([head, '| --- | --- | --- | --- | --- | --- | --- | --- |', *lines])


def _condition(case: Case) -> tuple[str, int, int, int, str]:
    return case.mode, case.height, case.width, case.batch, case.dtype


def plot(results: list[Measurement], file: Path) -> None:
    """Plot time and memory against pixels, one line per model, mode, batch and dtype."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout='constrained')
    lines: dict[str, list[Measurement]] = {}
    for r in results:
        lines.setdefault(f'{r.case.title}, {r.case.mode}, {r.case.batch} x {r.case.dtype}', []).append(r)
    for axis, what, unit in ((axes[0], 'median', 'seconds'), (axes[1], 'peak', 'MiB')):
        for label, measured in lines.items():
            points = [(r.case.height * r.case.width / 1e6, getattr(r, what)) for r in measured]
            points = sorted((pixels, value) for pixels, value in points if value is not None)
            if points:
                axis.plot(*zip(*points, strict=True), marker='o', label=label)
        axis.set(xlabel='million pixels', ylabel=unit, xscale='log', yscale='log')
    axes[0].legend(fontsize='x-small')
    figure.savefig(file, dpi=100)
    plt.close(figure)


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.list:
        print('\n'.join(ZOO))
        return
    groups = list_cases(args)
    if args.threads:
        torch.set_num_threads(args.threads)

    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[Measurement] = []
    total = sum(len(group) * (args.warmup + args.repeats + (not args.no_memory)) for group in groups)
    machine = f'{device_name(args.device)}; torch {torch.__version__}'
    others = OtherProcesses()
    with Progress(*columns, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task('runs', total=total)
        try:
            for group in groups:
                progress.update(task, description=f'{group[0].mode}, {group[0].height} x {group[0].width}')
                measured = measure_times(group, args.warmup, args.repeats, lambda: progress.advance(task))
                results += measured
                for result in measured if not args.no_memory else ():
                    if result.seconds:
                        add_peak(result, torch.get_num_threads())
                    progress.advance(task)
        except KeyboardInterrupt:
            progress.console.print('stopped; these are the results so far')
    busy_cores = others.busy_cores()

    print(f'{machine}; medians of {args.repeats}\n\n{table(results)}')
    if ratios := comparison(results):
        print(f'\n{ratios}')
    for result in results:
        if result.error:
            print(f'\n{result.case.title}, {result.case.mode}: {result.error}')
    if busy_cores > MAX_BUSY_CORES:
        print(f'\nUnreliable: other processes kept {busy_cores:.2f} cores busy on average. Repeat on an idle machine.')
    if args.json:
        measurements = [asdict(r) | {'median': r.median} for r in results]
        content = dict(machine=machine, others_busy_cores=busy_cores, measurements=measurements)
        Path(args.json).write_text(json.dumps(content, indent=1))
    if args.plot:
        plot(results, Path(args.plot))


if __name__ == '__main__':
    main()
