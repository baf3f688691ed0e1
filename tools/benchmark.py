"""Compare backbones: time of forward and of a training iteration, and peak memory, on the CPU or on a CUDA device.

A model is a name of --list, or a config file, whose backbone is measured. MODEL:BACKEND selects the backend of its ops:
MODEL:reference is the plain PyTorch implementation; deformable_vit.ops.backends lists the others. Times come from one
process that runs all models in turns, peak memory from a new process for each model, mode and size.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils.benchmark import timer
from tqdm import tqdm

from deformable_vit.apis.command_line import one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.apis.device import adapt_to_device
from deformable_vit.errors import UserError
from deformable_vit.ops import BACKENDS, deformable_attention, query_coordinates, use_backend

DEFAULT = ('dat-t', 'dat-t:reference', 'swin-t', 'dat-t-pp', 'dat-t-pp:reference', 'pvt-t', 'mmdet-pvt-t', 'dpt-t')
DTYPES = ('float32', 'float16', 'bfloat16')
ZOO = {
    **{f'pvt-{size[0]}': dict(type='PVT', arch=size) for size in ('tiny', 'small', 'medium', 'large')},
    **{f'pvtv2-{size}': dict(type='PVTv2', arch=size) for size in ('b0', 'b1', 'b2', 'b2-li')},
    **{f'dpt-{size[0]}': dict(type='DPT', arch=size) for size in ('tiny', 'small', 'medium')},
    **{f'dat-{size[0]}': dict(type='DAT', arch=size) for size in ('tiny', 'small', 'base')},
    **{f'dat-{size[0]}-pp': dict(type='DAT', arch=f'{size}++') for size in ('tiny', 'small', 'base')},
    'attention': dict(type='attention'),  # see class Attention
    # mmdet's, without stochastic depth, so that training runs all blocks.
    'mmdet-pvt-t': dict(type='mmdet.PyramidVisionTransformer', num_layers=[2, 2, 2, 2], drop_path_rate=0.0),
    'swin-t': dict(type='mmdet.SwinTransformer', depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), drop_path_rate=0.0),
}


@dataclass
class Case:
    """One model under one set of conditions, and what was measured.

    Attributes:
        seconds: Of each repeat.
        peak: MiB, where it was measured.
        error: What failed.
    """

    model: str
    backend: str
    mode: str
    height: int
    width: int
    batch: int
    dtype: str
    device: str
    seconds: list[float] = field(default_factory=list)
    peak: float | None = None
    error: str = ''

    @property
    def title(self) -> str:
        return self.model if self.backend == 'auto' else f'{self.model}:{self.backend}'

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


class Attention(nn.Module):
    """The deformable attention of stage 3 of DAT-T for images of one size: 12 heads of 32 channels, 3 groups."""

    def __init__(self, batch: int, height: int, width: int) -> None:
        super().__init__()
        self.size = -(-height // 16), -(-width // 16)
        n = self.size[0] * self.size[1]
        shapes = [(batch, 12, n, 32)] * 3 + [(12, 27, 27)]
        self.tensors = nn.ParameterList([*map(torch.randn, shapes), torch.rand(batch, 3, n, 2) * 2 - 1])

    def forward(self, x: Tensor) -> tuple[Tensor]:
        q, k, v, table, locations = self.tensors
        if torch.is_autocast_enabled(x.device.type):  # the dtype of the projections before it
            q, k, v = (t.to(torch.get_autocast_dtype(x.device.type)) for t in (q, k, v))
        axes = (query_coordinates(n, 'centers', locations) for n in self.size)
        return (deformable_attention(q, k, v, table, locations, *axes),)


@cache
def scope_and_backbone(name: str) -> tuple[str, dict]:
    """Return the scope and the config of a backbone, by its name or config file."""
    if name in ZOO:
        return 'mmdet', ZOO[name]
    config = load_config(name, {})
    adapt_to_device(config, 'none')
    if not isinstance(config.model.get('backbone'), dict):
        raise UserError(f'the model of {name} has no backbone')
    return config.default_scope, dict(config.model.backbone, init_cfg=None)


def parse_model(text: str) -> tuple[str, str]:
    """``NAME[:BACKEND]`` or ``CONFIG[:BACKEND]`` -> (name or config file, backend)."""
    name, _, backend = text.partition(':')
    if name not in ZOO and not name.endswith('.py'):
        raise UserError(f'{name} is neither a config file nor one of {", ".join(ZOO)}')
    if backend and backend not in BACKENDS:
        raise UserError(f'{text}: the backend must be one of {", ".join(BACKENDS)}')
    scope_and_backbone(name)
    return name, backend or 'auto'


def stepper(case: Case) -> Callable[[], None]:
    """Build a model, with the same weights each time; return a function that runs forward, and backward in training."""
    torch.manual_seed(0)
    scope, backbone = scope_and_backbone(case.model)
    if case.model == 'attention':
        model: nn.Module = Attention(case.batch, case.height, case.width)
    else:
        if case.backend == 'reference':  # plain PyTorch keeps all activations
            backbone = dict(backbone, recompute_activation=False)
        with DefaultScope.overwrite_default_scope(scope):
            model = importlib.import_module(f'{scope}.registry').MODELS.build(dict(backbone))
    model.to(case.device)
    training, dtype = case.mode == 'training', getattr(torch, case.dtype)
    model.train(training)
    x = torch.randn(case.batch, 3, case.height, case.width, device=case.device)

    def step() -> None:
        with use_backend(case.backend), torch.set_grad_enabled(training):
            with torch.autocast(case.device, dtype, enabled=dtype != torch.float32):
                outs = model(x)
            if training:
                sum(out.float().square().mean() for out in outs).backward()
                model.zero_grad(set_to_none=True)

    return step


def measure_times(cases: list[Case], warmup: int, repeats: int, bar: tqdm) -> None:
    """Run the cases in turns, so that a disturbance affects all of them."""
    steps = [stepper(case) for case in cases]
    for _ in range(warmup + repeats):
        for case, step in zip(cases, steps, strict=True):
            bar.update()
            if case.error:
                continue
            start = timer()  # synchronizes CUDA
            try:
                step()
            except torch.OutOfMemoryError:
                case.error = 'out of memory'
            else:
                case.seconds.append(timer() - start)
    for case in cases:
        del case.seconds[:warmup]
    del steps, step
    torch.cuda.empty_cache()  # for the processes that measure the peaks


def measure_peak(case: Case) -> float:
    """Return the MiB that model, gradients and one step need at most, without the libraries.

    On CUDA this is the memory that torch allocates. On a CPU it is the resident memory of this process, which has to be
    a new one that is forked: a program that is started inherits the peak of the one that starts it.
    """
    if case.device == 'cuda':
        step = stepper(case)
        step()  # allocates the workspaces of the libraries
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 2**20
    importlib.import_module(f'{scope_and_backbone(case.model)[0]}.models')  # so that its imports do not count
    unit = 2**20 if sys.platform == 'darwin' else 2**10  # bytes on macOS, KiB elsewhere
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stepper(case)()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def table(cases: list[Case]) -> str:
    """Return the results as Markdown; the factors are relative to the first model under the same conditions."""
    head = ('model', 'image', 'batch', 'dtype', 'mode', 'seconds', 'range', 'factor', 'peak MiB', 'factor', '')
    lines = ['| ' + ' | '.join(head) + ' |', '| ' + ' | '.join('---' for _ in head) + ' |']
    firsts: dict[tuple, Case] = {}
    for case in cases:
        conditions = f'{case.height} x {case.width}', str(case.batch), case.dtype, case.mode
        first = firsts.setdefault(conditions, case)
        times, memory = ['', '', ''], ['', '']
        if case.median:
            times = [f'{case.median:.4g}', f'{min(case.seconds):.4g} to {max(case.seconds):.4g}']
            times.append(f'{case.median / first.median:.2f}' if first.median else '')
        if case.peak:
            memory = [f'{case.peak:.0f}', f'{case.peak / first.peak:.2f}' if first.peak else '']
        lines.append('| ' + ' | '.join([case.title, *conditions, *times, *memory, case.error]) + ' |')
    return '\n'.join(lines)


def shape(text: str) -> tuple[int, int]:
    """Parse ``HxW``, or ``N`` for a square."""
    sizes = text.lower().split('x')
    if len(sizes) > 2 or not all(size.isdigit() and int(size) >= 32 for size in sizes):
        raise argparse.ArgumentTypeError(f'must be a height and a width of at least 32 such as 800x1344, got {text}')
    return int(sizes[0]), int(sizes[-1])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('models', nargs='*', default=DEFAULT, metavar='MODEL', help=f'default: {" ".join(DEFAULT)}')
    add('--list', action='store_true', help='list the names and exit')
    add('--shape', type=shape, nargs='+', default=[(800, 1344)], metavar='HxW', help='image sizes (default: 800x1344)')
    add('--batch', type=int, nargs='+', default=[1], help='batch sizes (default: 1)')
    add('--dtype', nargs='+', choices=DTYPES, default=['float32'], help='below float32 by autocast')
    add('--mode', nargs='+', choices=('forward', 'training'), default=['forward', 'training'])
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu', choices=('cpu', 'cuda'))
    add('--warmup', type=int, default=1, help='turns that do not count, before the others (default: 1)')
    add('--repeats', type=int, default=5, help='turns that count (default: 5)')
    add('--no-memory', action='store_true', help='do not measure the peak memory')
    add('--json', metavar='FILE', help='write all results to a file')
    args = parser.parse_args()
    if min(*args.batch, args.repeats) < 1 or args.warmup < 0:
        parser.error('--batch and --repeats must be at least 1, and --warmup at least 0')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no CUDA device')
    if args.json and not Path(args.json).absolute().parent.is_dir():
        parser.error(f'--json {args.json}: its directory does not exist')
    return args


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.list:
        print('\n'.join(ZOO))
        return
    models = [parse_model(text) for text in args.models]
    groups = [
        [Case(*model, mode, *size, batch, dtype, args.device) for model in models]
        for size in args.shape
        for batch in args.batch
        for dtype in args.dtype
        for mode in args.mode
    ]
    load = os.getloadavg()[0]  # before this process adds to it
    cases: list[Case] = []
    runs = args.warmup + args.repeats + (not args.no_memory)
    # The fork server is small, unlike this process, and forks a new process for each case.
    forking = multiprocessing.get_context('forkserver')
    with tqdm(total=sum(map(len, groups)) * runs, unit='run', disable=None) as bar:
        for group in groups:
            cases += group
            measure_times(group, args.warmup, args.repeats, bar)
            for case in group if not args.no_memory else ():
                bar.update()
                try:
                    with ProcessPoolExecutor(1, forking) as pool:
                        case.peak = pool.submit(measure_peak, case).result()
                except (RuntimeError, BrokenProcessPool) as error:
                    case.error = case.error or f'no peak memory: {error}'
    device = torch.cuda.get_device_name() if args.device == 'cuda' else f'{torch.get_num_threads()} threads'
    print(f'{device}; torch {torch.__version__}; medians of {args.repeats}; load average before: {load:.2f}')
    print(f'\n{table(cases)}')
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(case) for case in cases], indent=1))


if __name__ == '__main__':
    main()
