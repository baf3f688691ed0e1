"""Time and memory of one backbone, and how idle the machine was meanwhile."""

import gc
import importlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from deformable_vit.engine import UserError, adapt_to_device, load_config
from deformable_vit.ops import deformable_attention, query_coordinates, use_path
from deformable_vit.ops.paths import PATHS

# Without stochastic depth, so that all blocks run in training.
_HOSTS = {
    'mmdet-pvt-t': dict(type='mmdet.PyramidVisionTransformer', num_layers=[2, 2, 2, 2], drop_path_rate=0.0),
    'mmdet-pvtv2-b2': dict(
        type='mmdet.PyramidVisionTransformerV2', embed_dims=64, num_layers=[3, 4, 6, 3], drop_path_rate=0.0
    ),
    'swin-t': dict(
        type='mmdet.SwinTransformer',
        embed_dims=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        drop_path_rate=0.0,
    ),
    'r50': dict(type='mmdet.ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=True)),
}
# `attention` is one of DAT-T's stage 3.
ZOO = {
    **{f'pvt-{size[0]}': dict(type='PVT', arch=size) for size in ('tiny', 'small', 'medium', 'large')},
    **{f'pvtv2-{size}': dict(type='PVTv2', arch=size) for size in ('b0', 'b1', 'b2', 'b2-li')},
    **{f'dpt-{size[0]}': dict(type='DPT', arch=size) for size in ('tiny', 'small', 'medium')},
    **{f'dat-{size[0]}': dict(type='DAT', arch=size) for size in ('tiny', 'small', 'base')},
    **{f'dat-{size[0]}-pp': dict(type='DAT', arch=f'{size}++') for size in ('tiny', 'small', 'base')},
    'attention': None,
    **_HOSTS,
}


@dataclass(frozen=True)
class Case:
    """What is measured: a model by name, its operators' way, and how it is run."""

    model: str
    path: str
    mode: str
    height: int
    width: int
    batch: int
    dtype: str
    device: str
    compile: bool

    @property
    def title(self) -> str:
        return self.model if self.path == 'auto' else f'{self.model}:{self.path}'


@dataclass
class Measurement:
    """Seconds of the first call and of the repeats, MiB of the peak where it was measured, and what failed."""

    case: Case
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak: float | None = None
    error: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


class Attention(nn.Module):
    """The deformable attention of stage 3 of DAT-T for pictures of one size: 12 heads of 32 channels, 3 groups."""

    def __init__(self, batch: int, height: int, width: int) -> None:
        super().__init__()
        self.size = -(-height // 16), -(-width // 16)
        n = self.size[0] * self.size[1]
        self.tensors = nn.ParameterList(
            [torch.randn(batch, 12, n, 32) for _ in 'qkv']
            + [torch.randn(12, 27, 27), torch.rand(batch, 3, n, 2) * 2 - 1]
        )

    def forward(self, x: Tensor) -> tuple[Tensor]:
        q, k, v, table, points = self.tensors
        if torch.is_autocast_enabled(x.device.type):  # as the projections before it would leave them
            q, k, v = (t.to(torch.get_autocast_dtype(x.device.type)) for t in (q, k, v))
        axes = (query_coordinates(n, 'centers', points) for n in self.size)
        return (deformable_attention(q, k, v, table, points, *axes),)


def parse_model(text: str) -> tuple[str, str]:
    """``NAME[:PATH]`` -> (name or config file, the operators' way).

    Raises:
        UserError: There is neither such a model, nor such a file or way, or the file is not of a model with a backbone.
    """
    name, _, path = text.partition(':')
    if name in _HOSTS and path:
        raise UserError(f'{text}: {name} is of a host and goes one way only')
    if path and path not in PATHS:
        raise UserError(f'{text}: behind the colon goes one of {", ".join(PATHS)}')
    if path in ('blocks', 'products') and name in ZOO and not name.startswith(('dat', 'attention')):
        raise UserError(f'{text}: {path} is a way of deformable attention, which {name} has not')
    if name not in ZOO:
        if not name.endswith('.py'):
            raise UserError(f'{name} is neither a config file nor one of {", ".join(ZOO)}')
        if not isinstance(load_config(name, {}).model.get('backbone'), dict):
            raise UserError(f'the model of {name} has no backbone')
    return name, path or 'auto'


def build(case: Case) -> nn.Module:
    """The model, with weights from the same seed each time, on its device."""
    torch.manual_seed(0)
    if case.model == 'attention':
        model = Attention(case.batch, case.height, case.width)
    elif case.model in ZOO:
        model = _build('mmdet', ZOO[case.model])
    else:
        config = load_config(case.model, {})
        adapt_to_device(config, 'none')
        model = _build(config.default_scope, dict(config.model.backbone, init_cfg=None))
    model.to(case.device)
    model.train(case.mode == 'training')  # some of the hosts' return nothing
    if not case.compile:
        return model
    # All models here share their backbone's code; what is compiled for one counts as another's compiling again.
    torch._dynamo.config.recompile_limit = 1000
    torch._inductor.config.compile_threads = 1  # in this process, whose time is not taken for others'
    return torch.compile(model, dynamic=True)


def _build(scope: str, backbone: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope(scope):
        return importlib.import_module(f'{scope}.registry').MODELS.build(dict(backbone))


class Runner:
    """Runs one case, again and again."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = build(case)
        self.x = torch.randn(case.batch, 3, case.height, case.width, device=case.device)
        self.dtype = getattr(torch, case.dtype)

    def step(self) -> float:
        """One forward, or forward and backward; returns its seconds."""
        self._wait()
        start = time.perf_counter()
        with use_path(self.case.path), torch.set_grad_enabled(self.case.mode == 'training'):
            with torch.autocast(self.case.device, self.dtype, enabled=self.dtype != torch.float32):
                outs = self.model(self.x)
            if self.case.mode == 'training':
                sum(out.float().square().mean() for out in outs).backward()
        self._wait()
        seconds = time.perf_counter() - start
        self.model.zero_grad(set_to_none=True)
        return seconds

    def _wait(self) -> None:
        if self.case.device == 'cuda':
            torch.cuda.synchronize()


def measure_times(cases: list[Case], warmup: int, repeats: int, report: Callable[[], None]) -> list[Measurement]:
    """Run the cases in turns, so that a disturbance hits all of them; ``report`` is called after every step."""
    if any(case.compile for case in cases):
        torch._dynamo.reset()  # the first call of each compiles
    runners = [Runner(case) for case in cases]
    results = [Measurement(case) for case in cases]
    for turn in range(warmup + repeats):
        for runner, result in zip(runners, results, strict=True):
            if result.error is None:
                try:
                    seconds = runner.step()
                except RuntimeError as error:
                    if not _is_out_of_memory(error):
                        raise
                    result.error, result.seconds = 'out of memory', []
                else:
                    result.first = result.first or seconds
                    if turn >= warmup:
                        result.seconds.append(seconds)
            gc.collect()
            report()
    del runners, runner
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the fresh processes need it
    return results


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def measure_peak(case: Case) -> float:
    """MiB that model, gradients and one step need at most, beside the libraries; in a process with nothing else in it.

    On CUDA what torch allocates; on a CPU the resident memory of the process.
    """
    if case.device == 'cuda':
        runner = Runner(case)
        runner.step()  # libraries allocate work space in the first
        torch.cuda.reset_peak_memory_stats()
        runner.step()
        return torch.cuda.max_memory_allocated() / 2**20
    before = _resident('VmRSS')
    runner = Runner(case)
    if case.compile:
        runner.step()  # what the compiler needs is not the model's
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak of the imports
    runner.step()
    return _resident('VmHWM') - before


def _resident(key: str) -> float:
    (line,) = (line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


@contextmanager
def watch_others() -> Iterator[Callable[[], float | None]]:
    """Yields a function that says, when the context is left, how many cores others kept busy on average.

    Others are processes beside this one and its finished children, on the cores that this one may use. ``None`` where
    the system does not tell.
    """
    start, busy, own = time.perf_counter(), _busy_seconds(), _own_seconds()
    others: float | None = None
    yield lambda: others
    end = _busy_seconds()
    if busy is not None and end is not None:
        others = max(0.0, (end - busy - _own_seconds() + own) / (time.perf_counter() - start))


def _busy_seconds() -> float | None:
    """Of the cores that this process may use, since the system was started."""
    if not Path('/proc/stat').exists():
        return None
    cores = {f'cpu{n}' for n in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path('/proc/stat').read_text().splitlines():
        name, *times = line.split()
        if name in cores:
            ticks += sum(map(int, times[:8])) - int(times[3]) - int(times[4])  # all but idle and waiting for disks
    return ticks / os.sysconf('SC_CLK_TCK')


def _own_seconds() -> float:
    return sum(os.times()[:4])
