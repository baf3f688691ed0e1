"""Time and memory of one backbone, and how idle the machine was meanwhile."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from deformable_vit.engine import UserError, load_config
from deformable_vit.ops import deformable_attention, query_coordinates, use_path
from deformable_vit.ops.paths import PATHS

_SWIN_T = dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7)
# Without stochastic depth, so that all blocks run in training. `attention` is one of DAT-T's stage 3.
ZOO = {
    **{f'pvt-{size[0]}': dict(type='PVT', arch=size) for size in ('tiny', 'small', 'medium', 'large')},
    **{f'pvtv2-{size}': dict(type='PVTv2', arch=size) for size in ('b0', 'b1', 'b2', 'b2-li')},
    **{f'dpt-{size[0]}': dict(type='DPT', arch=size) for size in ('tiny', 'small', 'medium')},
    **{f'dat-{size[0]}': dict(type='DAT', arch=size) for size in ('tiny', 'small', 'base')},
    **{f'dat-{size[0]}-pp': dict(type='DAT', arch=f'{size}++') for size in ('tiny', 'small', 'base')},
    'attention': None,
    'mmdet-pvt-t': dict(type='mmdet.PyramidVisionTransformer', num_layers=[2, 2, 2, 2], drop_path_rate=0.0),
    'mmdet-pvtv2-b2': dict(
        type='mmdet.PyramidVisionTransformerV2', embed_dims=64, num_layers=[3, 4, 6, 3], drop_path_rate=0.0
    ),
    'swin-t': dict(type='mmdet.SwinTransformer', drop_path_rate=0.0, **_SWIN_T),
    'r50': dict(type='mmdet.ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=True)),
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
    """Seconds of the first call and of the repeats, and the peak of memory in MiB, where it was measured."""

    case: Case
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


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
        UserError: There is neither such a model, nor such a file or way.
    """
    name, _, path = text.partition(':')
    if name not in ZOO and not Path(name).is_file():
        raise UserError(f'{name} is neither a config file nor one of {", ".join(ZOO)}')
    if path and path not in PATHS:
        raise UserError(f'{text}: behind the colon goes one of {", ".join(PATHS)}')
    return name, path or 'auto'


def build(case: Case) -> nn.Module:
    """The model, with weights from the same seed each time, on its device."""
    torch.manual_seed(0)
    if case.model == 'attention':
        model = Attention(case.batch, case.height, case.width)
    else:
        cfg = ZOO.get(case.model) or dict(load_config(case.model).model.backbone, init_cfg=None)
        model = MODELS.build(dict(cfg))
    model.to(case.device)
    model.train(case.mode == 'training')  # some of the hosts' return nothing
    # Dynamic from the start: one compilation for all sizes.
    return torch.compile(model, dynamic=True) if case.compile else model


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
    runners = [Runner(case) for case in cases]
    results = [Measurement(case) for case in cases]
    for turn in range(warmup + repeats):
        for runner, result in zip(runners, results, strict=True):
            seconds = runner.step()
            if turn == 0:
                result.first = seconds
            if turn >= warmup:
                result.seconds.append(seconds)
            gc.collect()
            report()
    return results


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
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak of the imports
    runner.step()
    return _resident('VmHWM') - before


def _resident(key: str) -> float:
    (line,) = (line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


@contextmanager
def watch_others() -> Iterator[Callable[[], float]]:
    """Yields a function that says, when the context is left, how many cores others kept busy on average.

    Others are processes beside this one and its finished children, on the cores that this one may use.
    """
    start, busy, own = time.perf_counter(), _busy_seconds(), _own_seconds()
    others = 0.0
    yield lambda: others
    others = max(0.0, (_busy_seconds() - busy - _own_seconds() + own) / (time.perf_counter() - start))


def _busy_seconds() -> float:
    cores = {f'cpu{n}' for n in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path('/proc/stat').read_text().splitlines():
        name, *times = line.split()
        if name in cores:
            ticks += sum(map(int, times[:8])) - int(times[3]) - int(times[4])  # all but idle and waiting for disks
    return ticks / os.sysconf('SC_CLK_TCK')


def _own_seconds() -> float:
    return sum(os.times()[:4])
