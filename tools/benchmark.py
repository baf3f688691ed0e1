"""Compare backbones: time of forward and of a training iteration, and peak memory, on the CPU or on a CUDA device.

A model is a name of --list, or a config file, whose backbone is measured. MODEL:BACKEND selects the backend of its ops:
MODEL:reference is the plain PyTorch implementation; deformable_vit.ops.backends lists the others. A model may also be
an exported file: .onnx runs in ONNX Runtime, .xml in OpenVINO, on the CPU with as many threads as PyTorch, forward in
float32; other conditions leave it out. Times come from one process that runs all models in turns, peak memory from a
new process for each model, mode and size.
"""

import argparse
import importlib
import itertools
import json
import multiprocessing
import os
import resource
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils.benchmark import timer
from tqdm import tqdm

from deformable_vit.apis.command_line import one_line_errors
from deformable_vit.apis.config import load_config
from deformable_vit.apis.device import adapt_to_device
from deformable_vit.errors import UserError, first_line
from deformable_vit.export.running import is_exported, open_file
from deformable_vit.ops import BACKENDS, deformable_attention, query_coordinates, use_backend

DEFAULT = ('dat-t', 'dat-t:reference', 'swin-t', 'dat-t-pp', 'dat-t-pp:reference', 'pvt-t', 'mmdet-pvt-t', 'dpt-t')
ZOO: dict[str, dict[str, Any]] = {
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
    """A model under one set of conditions, and what was measured: seconds of the repeats, peak in MiB, or an error."""

    model: str
    backend: str
    height: int
    width: int
    batch: int
    dtype: str
    mode: str
    device: str
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0
    error: str = ''


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
        y, x = (query_coordinates(n, 'centers', locations) for n in self.size)
        return (deformable_attention(q, k, v, table, locations, y, x),)


@cache
def scope_and_backbone(name: str) -> tuple[str, dict[str, Any]]:
    """Return the scope and the config of a backbone, by its name or config file."""
    if name in ZOO:
        return 'mmdet', ZOO[name]
    if not name.endswith('.py'):
        raise UserError(f'{name} is neither a config file nor one of {", ".join(ZOO)}')
    config = load_config(name, {})
    adapt_to_device(config, 'none')
    return config.default_scope, dict(config.model.backbone, init_cfg=None)


def parse_model(text: str) -> tuple[str, str]:
    """Return the name or config file, and the backend, of ``NAME[:BACKEND]`` or ``CONFIG[:BACKEND]``."""
    name, _, backend = text.partition(':')
    if backend and backend not in BACKENDS:
        raise UserError(f'{text}: the backend must be one of {", ".join(BACKENDS)}')
    if not is_exported(name):
        scope_and_backbone(name)
    elif backend or not Path(name).is_file():
        raise UserError(f'{text}: name an exported file that exists, without a backend')
    return name, backend or 'auto'


def stepper(case: Case) -> Callable[[], Sequence[Tensor]]:
    """Build a model, with the same weights and images each time.

    Returns:
        A function that runs forward, and backward in training, and returns the outputs.
    """
    torch.manual_seed(0)
    if is_exported(case.model):
        run, *_ = open_file(Path(case.model))
        image = torch.randn(case.batch, 3, case.height, case.width)

        def run_file() -> Sequence[Tensor]:
            try:
                return [torch.from_numpy(out) for out in run(image.numpy())]
            except Exception as error:  # of the two libraries, which have many
                size = ' x '.join(map(str, image.shape))
                raise UserError(f'{case.model} does not run with {size} float32: {first_line(error)}') from error

        return run_file
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

    def step() -> Sequence[Tensor]:
        with use_backend(case.backend), torch.set_grad_enabled(training):
            with torch.autocast(case.device, dtype, enabled=dtype != torch.float32):
                outs = model(x)
            if training:
                sum(out.float().square().mean() for out in outs).backward()
                model.zero_grad(set_to_none=True)
        return [out.detach() for out in outs]

    return step


def measure_times(cases: list[Case], repeats: int) -> None:
    """Run the cases in turns, so that a disturbance affects all of them. The first turn does not count."""
    steps = [stepper(case) for case in cases]
    for turn in tqdm(range(1 + repeats), desc=f'{cases[0].mode}, turns', disable=None):
        for case, step in zip(cases, steps, strict=True):
            if case.error:
                continue
            start = timer()  # synchronizes CUDA
            try:
                step()
            except torch.OutOfMemoryError:
                case.error = 'out of memory'
            else:
                case.seconds += [timer() - start] if turn else []
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
    library = {'.onnx': 'onnxruntime', '.xml': 'openvino'}.get(Path(case.model).suffix)
    # So that the imports do not count.
    importlib.import_module(library or f'{scope_and_backbone(case.model)[0]}.models')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stepper(case)()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10  # from KiB


def table(cases: list[Case]) -> str:
    """Return the results as Markdown; the factors are relative to the first model under the same conditions."""
    lines = [
        '| model | image | batch | dtype | mode | seconds | range | factor | peak MiB | factor | |',
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    firsts: dict[tuple[str, ...], Case] = {}
    for case in cases:
        conditions = f'{case.height} x {case.width}', str(case.batch), case.dtype, case.mode
        first = firsts.setdefault(conditions, case)
        model = case.model if case.backend == 'auto' else f'{case.model}:{case.backend}'
        cells = [model, *conditions, '', '', '', '', '', case.error]
        if case.seconds:
            median = statistics.median(case.seconds)
            cells[5:7] = f'{median:.4g}', f'{min(case.seconds):.4g} to {max(case.seconds):.4g}'
            cells[7] = f'{median / statistics.median(first.seconds):.2f}' if first.seconds else ''
        if case.peak:
            cells[8:10] = f'{case.peak:.0f}', f'{case.peak / first.peak:.2f}' if first.peak else ''
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def shape(text: str) -> tuple[int, int]:
    height, width = map(int, text.split('x'))
    return height, width


def parse_args() -> argparse.Namespace:
    devices = ('cuda', 'cpu') if torch.cuda.is_available() else ('cpu',)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('models', nargs='*', default=DEFAULT, metavar='MODEL', help=f'default: {" ".join(DEFAULT)}')
    add('--list', action='store_true', help='list the names and exit')
    add('--shape', type=shape, nargs='+', default=[(800, 1344)], metavar='HxW', help='image sizes (default: 800x1344)')
    add('--batch', type=int, nargs='+', default=[1], help='batch sizes (default: 1)')
    dtypes = ('float32', 'float16', 'bfloat16')
    add('--dtype', nargs='+', choices=dtypes, default=['float32'], help='below float32 by autocast')
    add('--mode', nargs='+', choices=('forward', 'training'), default=['forward', 'training'])
    add('--device', default=devices[0], choices=devices)
    add('--repeats', type=int, default=5, help='turns that count, after one that does not (default: 5)')
    add('--json', type=Path, metavar='FILE', help='write all results to a file')
    return parser.parse_args()


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.list:
        print('\n'.join(ZOO))
        return
    models = [parse_model(text) for text in args.models]
    groups = [
        [
            Case(name, backend, height, width, batch, dtype, mode, args.device)
            for name, backend in models
            if not is_exported(name) or (dtype, mode, args.device) == ('float32', 'forward', 'cpu')
        ]
        for (height, width), batch, dtype, mode in itertools.product(args.shape, args.batch, args.dtype, args.mode)
    ]
    load = os.getloadavg()[0]  # before this process adds to it
    # The fork server is small, unlike this process, and forks a new process for each case.
    forking = multiprocessing.get_context('forkserver')
    for group in filter(None, groups):
        measure_times(group, args.repeats)
        for case in tqdm(group, desc=f'{group[0].mode}, memory', disable=None):
            try:
                with ProcessPoolExecutor(1, forking) as pool:
                    case.peak = pool.submit(measure_peak, case).result()
            except (RuntimeError, BrokenProcessPool) as error:
                case.error = case.error or f'no peak memory: {error}'
    cases = list(itertools.chain(*groups))
    device = torch.cuda.get_device_name() if args.device == 'cuda' else f'{torch.get_num_threads()} threads'
    print(f'{device}; torch {torch.__version__}; medians of {args.repeats}; load average before: {load:.2f}')
    print(f'\n{table(cases)}')
    if args.json:
        args.json.write_text(json.dumps([asdict(case) for case in cases], indent=1))


if __name__ == '__main__':
    main()
