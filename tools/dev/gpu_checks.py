"""The parts of tools/check_gpu.py, which runs each in a process of its own: PART FILE.json [--smoke].

A part prints freely, and writes the rows of its tables as JSON. It fails by an exception or an exit status.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from benchmark import Case, measure_peak, measure_times, stepper
from check_gpu import ROOT, one_line, short
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from deformable_vit.ops import use_backend

# Backends of each family's ops; auto is the first of them.
BACKENDS = {
    'PVT': ('auto',),
    'PVTv2': ('auto',),
    'DPT': ('auto', 'grid_sample', 'mmcv'),
    'DAT': ('auto', 'chunked', 'products', 'triton'),
    'DAT++': ('auto', 'chunked', 'products', 'triton'),
}
ARCHS = {'PVT': 'tiny', 'PVTv2': 'b1', 'DPT': 'tiny', 'DAT': 'tiny', 'DAT++': 'tiny++'}
# Largest |difference| / |reference| of outputs and of gradients that is rounding, with norms of all values together.
BOUNDS = {torch.float32: (1e-4, 1e-3), torch.float16: (0.02, 0.1), torch.bfloat16: (0.1, 0.4)}
TIMED = {
    'dat-t': ('auto', 'chunked', 'products', 'triton', 'reference'),
    'dat-t-pp': ('auto', 'chunked', 'products', 'triton', 'reference'),
    'dpt-t': ('auto', 'reference'),
    'pvt-t': ('auto', 'reference'),
    'swin-t': ('auto',),
}
Rows = dict[str, list[dict[str, str]]]


class Part:
    """What all parts have: the device, the sizes and the tables."""

    def __init__(self, file: Path, smoke: bool) -> None:
        self.file, self.smoke, self.device = file, smoke, 'cpu' if smoke else 'cuda'
        self.rows: Rows = {}
        self.failed: list[str] = []

    def add(self, table: str, /, **cells: str) -> None:
        """Append a row, and write all of them; `failed` in one of its cells fails the part."""
        self.rows.setdefault(table, []).append(cells)
        self.failed += [f'{table}: {cells}'] if any('failed' in cell for cell in cells.values()) else []
        self.file.write_text(json.dumps(self.rows))

    def build(self, family: str) -> nn.Module:
        """Build a backbone with the same weights each time."""
        torch.manual_seed(0)
        arch: Any = ARCHS[family]
        if self.smoke:  # the heads of DAT++ have 32 channels, which the Triton kernels take
            arch = dict(like='test++', num_heads=(2, 3, 4, 5)) if family == 'DAT++' else 'test'
        model = MODELS.build(dict(type=family.removesuffix('++'), arch=arch))
        with torch.no_grad():  # new offsets are zero, so that all locations are at the kinks of bilinear reads
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        return model.to(self.device)

    def images(self) -> Tensor:
        torch.manual_seed(1)
        return torch.randn(2, 3, *((64, 96) if self.smoke else (224, 320))).to(self.device)


def loss(outs: tuple[Tensor, ...]) -> Tensor:
    """Return a sum whose gradient differs from element to element."""
    return sum((out.double() * torch.arange(out.numel(), device=out.device).sin().view_as(out)).sum() for out in outs)


def results(model: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs and the gradients of the parameters; half precision by autocast."""
    model.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, dtype, enabled=dtype.itemsize == 2):
        outs = model(x)
    loss(outs).backward()
    return [out.detach() for out in outs], [p.grad for p in model.parameters() if p.grad is not None]


def deviation(found: list[Tensor], exact: list[Tensor]) -> float:
    pairs = list(zip(found, exact, strict=True))
    return (
        float(sum((a.double() - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)) ** 0.5
    )


def verdict(found: tuple[float, float], dtype: torch.dtype) -> dict[str, str]:
    """Return the cells of two deviations; NaN fails too."""
    passed = all(a <= b for a, b in zip(found, BOUNDS[dtype], strict=True))
    return dict(output=f'{found[0]:.1e}', gradients=f'{found[1]:.1e}', result='passed' if passed else 'failed')


# --- the parts -------------------------------------------------------------------------------------------------------


def mmcv(part: Part) -> None:
    """Find mmcv's CUDA ops; build them in this checkout's .venv if they are missing."""
    code = 'from mmcv.ops import get_compiling_cuda_version as f; print(f())'
    version = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False).stdout.strip()
    if 'not available' in version and not part.smoke:
        if Path(sys.prefix).resolve() != (ROOT / '.venv').resolve():
            sys.exit('mmcv has no CUDA ops: `make gpu` builds them in .venv')
        env = os.environ | {'DEFORMABLE_VIT_CUDA': '1'}
        subprocess.run(['bash', 'tools/dev/setup.sh'], env=env, check=True)
        return mmcv(part)
    if not version:
        sys.exit('mmcv has no compiled ops: run make setup')
    part.add('mmcv', what='ops compiled with CUDA', value=version)


def tests(part: Part) -> None:
    """Run the tests that need a GPU."""
    files = ['tests/ops/test_sampling.py'] if part.smoke else []
    command = [sys.executable, '-m', 'pytest', '-n', '0', '-q', '-m', 'gpu', *files]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    part.add('Tests marked gpu', result=('' if done.returncode == 0 else 'failed: ') + one_line(done.stdout))


def parity(part: Part) -> None:
    """Compare outputs and gradients of each family and backend with the reference implementation in float64."""
    torch.backends.cudnn.allow_tf32 = False
    for family, backends in BACKENDS.items():
        model, x = part.build(family).eval(), part.images()
        with use_backend('reference'):
            exact = results(copy.deepcopy(model).double(), x.double())
        for dtype in list(BOUNDS)[:2] if part.smoke else BOUNDS:  # Triton's interpreter has no bfloat16
            for backend in backends:
                cells = dict(family=family, backend=backend, dtype=short(dtype))
                try:
                    with use_backend(backend):
                        found = results(model, x, dtype)
                    cells |= verdict(tuple(map(deviation, found, exact)), dtype)
                except (RuntimeError, ValueError) as error:
                    cells |= dict(result=f'failed: {one_line(error)}')
                part.add('Deviation from `reference` in float64', **cells)


def amp(part: Part) -> None:
    """Train each family for some iterations on one batch, in half precision with scaled losses: the loss falls."""
    for family in BACKENDS:
        for dtype in (torch.float16, torch.bfloat16):
            model, x = part.build(family).train(), part.images()
            optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
            scaler = torch.amp.GradScaler(part.device, enabled=dtype == torch.float16)
            losses = []
            for _ in range(8):
                optimizer.zero_grad()
                with torch.autocast(part.device, dtype):
                    value = sum((out.float() - 1).square().mean() for out in model(x))
                scaler.scale(value).backward()
                scaler.step(optimizer)
                scaler.update()
                losses.append(float(value.detach()))
            cells = dict(family=family, dtype=short(dtype), loss=f'{losses[0]:.4f} to {losses[-1]:.4f}')
            part.add('Training in half precision', **cells, result='passed' if losses[-1] < losses[0] else 'failed')


def compiled(part: Part) -> None:
    """Compile each family, and compare with the uncompiled model in float32."""
    torch.backends.cudnn.allow_tf32 = False
    options = dict(backend='aot_eager') if part.smoke else {}
    for family in list(BACKENDS)[-1:] if part.smoke else BACKENDS:
        model, x = part.build(family).eval(), part.images()
        exact = results(model, x)
        torch._dynamo.reset()
        found = results(torch.compile(model, fullgraph=True, **options), x)
        exact = tuple([t.double() for t in tensors] for tensors in exact)
        part.add('torch.compile', family=family, **verdict(tuple(map(deviation, found, exact)), torch.float32))


def distributed(part: Part) -> None:
    """Train in two processes by NCCL, or gloo on the CPU: the gradients are the means of those of both batches."""
    if not part.smoke and torch.cuda.device_count() < 2:
        part.add('Two processes', result='skipped: there is one GPU')
        return
    init = f'file://{part.file.resolve()}.init'
    torch.multiprocessing.spawn(_gradients_of_rank, (init, part.file, part.smoke), nprocs=2)
    part.add('Two processes', backend='gloo' if part.smoke else 'NCCL', result='passed: equal gradients')


def _gradients_of_rank(rank: int, init: str, file: Path, smoke: bool) -> None:
    part = Part(file, smoke)
    if not smoke:
        torch.cuda.set_device(rank)
    dist.init_process_group('gloo' if smoke else 'nccl', init, rank=rank, world_size=2)
    model, images = part.build('DAT').train(), part.images()
    alone = [results(model, x[None])[1] for x in images]
    _, together = results(DistributedDataParallel(model), images[rank : rank + 1])
    for a, b, both in zip(*alone, together, strict=True):
        torch.testing.assert_close(both, (a + b) / 2, rtol=1e-3, atol=1e-4 * float(both.abs().max() + 1))
    dist.destroy_process_group()


def times(part: Part) -> None:
    """Measure forward and training, memory, and the outputs' deviation from `reference` in float32."""
    timed, sizes, batches, dtypes, repeats = TIMED, ((224, 224), (800, 1344)), (1, 2), ('float32', 'bfloat16'), 5
    if part.smoke:
        timed, sizes, batches, dtypes, repeats = (
            {'dat-t': ('products',), 'swin-t': ('auto',)},
            ((64, 64),),
            (1,),
            ('float32',),
            1,
        )
    for height, width in sizes:
        for batch in batches:
            for dtype in dtypes:
                base = [
                    Case(model, backend, height, width, batch, dtype, 'training', part.device)
                    for model, backends in timed.items()
                    for backend in backends
                ]
                training, forward = (
                    _measured([replace(c, mode=m, seconds=[]) for c in base], repeats) for m in ('training', 'forward')
                )
                for one, two in zip(training, forward, strict=True):
                    _add_times(part, one, two)


def _measured(cases: list[Case], repeats: int) -> list[Case]:
    for case in cases:
        try:
            case.peak = measure_peak(case)
        except (RuntimeError, ValueError) as error:  # also out of memory
            case.error = one_line(error)
        torch.cuda.empty_cache()
    measure_times([case for case in cases if not case.error], repeats)
    return cases


def _add_times(part: Part, training: Case, forward: Case) -> None:
    cells = dict(model=training.model, backend=training.backend, image=f'{training.height} x {training.width}')
    cells |= dict(batch=str(training.batch), dtype=training.dtype)
    for name, case in (('forward', forward), ('training', training)):
        if case.seconds:
            cells[f'{name} ms'] = f'{sorted(case.seconds)[len(case.seconds) // 2] * 1e3:.2f}'
            cells[f'{name} MiB'] = f'{case.peak:.0f}'
    if not forward.error and training.model != 'swin-t':
        exact = stepper(replace(forward, backend='reference', dtype='float32'))
        found = [[out.double() for out in step()] for step in (stepper(forward), exact)]
        cells['deviation'] = f'{deviation(*found):.1e}'
    part.add('Times', **cells, note=training.error or forward.error)


PARTS: dict[str, Callable[[Part], None]] = dict(
    mmcv=mmcv, tests=tests, parity=parity, amp=amp, compile=compiled, distributed=distributed, times=times
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('part', choices=PARTS)
    parser.add_argument('file', type=Path, help='gets the rows of the tables')
    parser.add_argument('--smoke', action='store_true', help='the same on the CPU at tiny sizes')
    args: Any = parser.parse_args()
    if not args.smoke and not torch.cuda.is_available():
        sys.exit(f'gpu_checks.py: error: torch {torch.__version__} can use no CUDA GPU here')
    part = Part(args.file, args.smoke)
    PARTS[args.part](part)
    sys.exit(f'{len(part.failed)} rows failed, such as {part.failed[0]}' if part.failed else 0)


if __name__ == '__main__':
    main()
