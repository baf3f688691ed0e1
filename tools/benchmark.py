"""Compare backbones: time of forward and of a training step, and peak memory, on this machine's CPU or CUDA device.

Models are named by --list, or by a config file, whose backbone is taken. NAME:reference is the same model by the
operators' slow, obvious forms, NAME:blocks and NAME:products by one of the fast ways of deformable attention (see
deformable_vit.ops.paths). Times are of one process that runs all models in turns; memory is of a fresh process for
each model, mode and size.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import matplotlib
import torch
from _measure import ZOO, Case, Measurement, measure_peak, measure_times, parse_model, watch_others
from matplotlib.backend_bases import FigureCanvasBase
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deformable_vit.engine import UserError, one_line_errors

matplotlib.use('Agg')
from matplotlib import pyplot as plt

# What the comparison below the table is made of, where both were measured.
VERSUS = (
    ('dat-t', 'dat-t:reference'),
    ('dat-t', 'swin-t'),
    ('dat-t-pp', 'dat-t-pp:reference'),
    ('pvt-t', 'mmdet-pvt-t'),
    ('dpt-t', 'dpt-t:reference'),
    ('attention', 'attention:reference'),
)
DEFAULT = list(dict.fromkeys(name for pair in VERSUS[:-1] for name in pair))
DTYPES = ('float32', 'float16', 'bfloat16')
# Cores that others may keep busy on average before the figures are called doubtful.
IDLE = 0.1


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'models', nargs='*', metavar='MODEL', help=f'NAME[:PATH] or CONFIG (default: {" ".join(DEFAULT)})'
    )
    parser.add_argument('--list', action='store_true', help='list the names and stop')
    parser.add_argument(
        '--shape', nargs='+', default=['800x1344'], metavar='HxW', help='pictures in pixels (default: 800x1344)'
    )
    parser.add_argument('--batch', type=int, nargs='+', default=[1], help='pictures at a time (default: 1)')
    parser.add_argument('--dtype', nargs='+', choices=DTYPES, default=['float32'], help='below float32 by autocast')
    parser.add_argument('--mode', nargs='+', choices=('forward', 'training'), default=['forward', 'training'])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--threads', type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument('--compile', action='store_true', help='with torch.compile; what it takes is in "first call"')
    parser.add_argument('--warmup', type=int, default=1, help='turns before what counts (default: 1)')
    parser.add_argument('--repeats', type=int, default=5, help='turns that count (default: 5)')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peaks of memory')
    parser.add_argument('--json', metavar='FILE', help='write every figure to a new file')
    parser.add_argument('--plot', metavar='FILE', help='draw time and memory against pixels in a new file')
    parser.add_argument('--peak-of', help=argparse.SUPPRESS)  # what the fresh processes are told
    return parser.parse_args()


def parse_shape(text: str) -> tuple[int, int]:
    """``HxW`` or ``N`` for a square."""
    edges = text.lower().split('x')
    if len(edges) > 2 or not all(edge.isdigit() and int(edge) >= 32 for edge in edges):
        raise UserError(f'--shape {text}: a height and a width of at least 32 pixels such as 800x1344 are needed')
    return int(edges[0]), int(edges[-1])


def list_cases(args: argparse.Namespace) -> list[list[Case]]:
    """The cases that are run in turns with each other, a list for each size, batch, dtype and mode."""
    for name, least in (('warmup', 0), ('repeats', 1)):
        if getattr(args, name) < least:
            raise UserError(f'--{name} must be at least {least}, got {getattr(args, name)}')
    if min(args.batch) < 1 or (args.threads is not None and args.threads < 1):
        raise UserError(f'--batch and --threads must be at least 1, got {args.batch} and {args.threads}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no CUDA device')
    for file in (args.json, args.plot):
        if file and not Path(file).absolute().parent.is_dir():
            raise UserError(f'{file}: its folder does not exist')
        if file and (Path(file).is_file() or Path(file).is_dir()):
            raise UserError(f'{file} is there already; name another file')
    if args.json and args.plot and Path(args.json).resolve() == Path(args.plot).resolve():
        raise UserError(f'--json and --plot both name {args.json}')
    formats = FigureCanvasBase.get_supported_filetypes()
    if args.plot and Path(args.plot).suffix[1:] not in formats:
        raise UserError(f'--plot {args.plot}: name a picture that ends with one of {", ".join(formats)}')
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
    """Fill in the peak of memory, or what went wrong in the process that was to measure it."""
    case = result.case
    command = [sys.executable, str(Path(__file__).resolve()), '--peak-of', json.dumps(asdict(case))]
    done = subprocess.run(
        [*command, '--threads', str(threads)], capture_output=True, text=True, env=os.environ, check=False
    )
    if done.returncode == 0:
        result.peak = float(done.stdout.split()[-1])
    else:
        lines = done.stderr.strip().splitlines() or ['no message']
        result.error = f'no peak: {lines[-1][:100]} (exit status {done.returncode})'


def table(results: list[Measurement]) -> str:
    """The figures as Markdown; the spread is from the fastest to the slowest repeat."""
    lines = [
        '| model | picture | batch | dtype | mode | seconds | spread | first call | peak MiB |',
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
    """Ratios of models that were measured under the same conditions, as Markdown; empty where there are none."""
    lines = []
    conditions = {(r.case.title, *_condition(r.case)): r for r in results}
    for ours, theirs in VERSUS:
        for condition in dict.fromkeys(_condition(r.case) for r in results):
            a, b = conditions.get((ours, *condition)), conditions.get((theirs, *condition))
            if a and b and a.seconds and b.seconds:
                mode, height, width, batch, dtype = condition
                memory = '' if a.peak is None or b.peak is None else f'{a.peak / b.peak:.2f}'
                cells = [f'{ours} against {theirs}', f'{height} x {width}', str(batch), dtype, mode]
                cells += [f'{b.median / a.median:.2f}', f'{a.median / b.median:.2f}', memory]
                lines.append('| ' + ' | '.join(cells) + ' |')
    if not lines:
        return ''
    head = '| | picture | batch | dtype | mode | times faster | share of its time | share of its memory |'
    return '\n'.join([head, '| --- | --- | --- | --- | --- | --- | --- | --- |', *lines])


def _condition(case: Case) -> tuple[str, int, int, int, str]:
    return case.mode, case.height, case.width, case.batch, case.dtype


def plot(results: list[Measurement], file: Path) -> None:
    """Time and memory against pixels, a line for each model, mode, batch and dtype."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout='constrained')
    lines: dict[str, list[Measurement]] = {}
    for r in results:
        lines.setdefault(f'{r.case.title}, {r.case.mode}, {r.case.batch} x {r.case.dtype}', []).append(r)
    for axis, what, unit in ((axes[0], 'median', 'seconds'), (axes[1], 'peak', 'MiB')):
        for label, points in lines.items():
            known = [(r.case.height * r.case.width / 1e6, getattr(r, what)) for r in points]
            known = sorted((pixels, figure) for pixels, figure in known if figure is not None)
            if known:
                axis.plot(*zip(*known, strict=True), marker='o', label=label)
        axis.set(xlabel='million pixels', ylabel=unit, xscale='log', yscale='log')
    axes[0].legend(fontsize='x-small')
    figure.savefig(file, dpi=100)
    plt.close(figure)


def device_name(device: str) -> str:
    if device == 'cuda':
        return torch.cuda.get_device_name()
    names = [line.split(':')[1].strip() for line in _cpu_info() if line.startswith('model name')]
    return f'{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads'


def _cpu_info() -> list[str]:
    file = Path('/proc/cpuinfo')
    return file.read_text().splitlines() if file.exists() else []


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.list:
        print('\n'.join(ZOO))
        return
    if args.peak_of:
        torch.set_num_threads(args.threads)
        print(measure_peak(Case(**json.loads(args.peak_of))))
        return
    groups = list_cases(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    with_memory = not args.no_memory and (args.device == 'cuda' or os.access('/proc/self/clear_refs', os.W_OK))
    if not args.no_memory and not with_memory:
        print('no figures of memory: on a CPU they need /proc, which is not here')

    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[Measurement] = []
    total = sum(len(group) * (args.warmup + args.repeats + with_memory) for group in groups)
    machine = f'{device_name(args.device)}; torch {torch.__version__}'
    with watch_others() as others, Progress(*columns, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task('steps', total=total)
        try:
            for group in groups:
                progress.update(task, description=f'{group[0].mode}, {group[0].height} x {group[0].width}')
                measured = measure_times(group, args.warmup, args.repeats, lambda: progress.advance(task))
                results += measured
                for result in measured if with_memory else ():
                    if result.seconds:
                        add_peak(result, torch.get_num_threads())
                    progress.advance(task)
        except KeyboardInterrupt:
            progress.console.print('stopped; what follows was measured before')

    print(f'{machine}; medians of {args.repeats}\n\n{table(results)}')
    if ratios := comparison(results):
        print(f'\n{ratios}')
    for result in results:
        if result.error:
            print(f'\n{result.case.title}, {result.case.mode}: {result.error}')
    if others() is None:
        print('\nWhether others were at work on the machine is not known here.')
    elif others() > IDLE:
        print(
            f'\nThe machine was not idle: others kept {others():.2f} cores busy on average. Do not trust these figures.'
        )
    if args.json:
        entries = [asdict(r) | {'median': r.median} for r in results]
        whole = dict(machine=machine, others_busy_cores=others(), measurements=entries)
        Path(args.json).write_text(json.dumps(whole, indent=1))
    if args.plot:
        plot(results, Path(args.plot))


if __name__ == '__main__':
    main()
