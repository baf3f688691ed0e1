"""Time and memory of one backbone."""

import functools
import gc
import importlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from _machine import peak_resident_mib, resident_mib
from mmengine.registry import DefaultScope, Registry
from torch import Tensor, nn

from deformable_vit.engine import UserError, adapt_to_device, load_config
from deformable_vit.ops import BACKENDS, deformable_attention, query_coordinates, use_backend

# mmdet's backbones, without stochastic depth, so that training runs all blocks.
_MMDET = {
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
ZOO = {
    **{f'pvt-{size[0]}': dict(type='PVT', arch=size) for size in ('tiny', 'small', 'medium', 'large')},
    **{f'pvtv2-{size}': dict(type='PVTv2', arch=size) for size in ('b0', 'b1', 'b2', 'b2-li')},
    **{f'dpt-{size[0]}': dict(type='DPT', arch=size) for size in ('tiny', 'small', 'medium')},
    **{f'dat-{size[0]}': dict(type='DAT', arch=size) for size in ('tiny', 'small', 'base')},
    **{f'dat-{size[0]}-pp': dict(type='DAT', arch=f'{size}++') for size in ('tiny', 'small', 'base')},
    'attention': dict(type='attention'),  # see class Attention
    **_MMDET,
}
# Backends besides `auto` that make a difference, by type.
_BACKENDS_OF = {
    'PVT': ('reference',),
    'PVTv2': ('reference',),
    'DPT': ('reference', 'grid_sample', 'mmcv'),
    'DAT': ('reference', 'chunked', 'separable', 'grid_sample', 'mmcv'),
    'attention': ('reference', 'chunked', 'separable'),
}


@dataclass(frozen=True)
class Case:
    """One model under one set of conditions."""

    model: str
    backend: str
    mode: str
    height: int
    width: int
    batch: int
    dtype: str
    device: str
    compile: bool

    @property
    def title(self) -> str:
        return self.model if self.backend == 'auto' else f'{self.model}:{self.backend}'


@dataclass
class Measurement:
    """Results of one case.

    Attributes:
        first: Seconds of the first call.
        seconds: Of each repeat.
        peak: MiB, where it was measured.
        error: What failed.
    """

    case: Case
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak: float | None = None
    error: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


class Attention(nn.Module):
    """The deformable attention of stage 3 of DAT-T for images of one size: 12 heads of 32 channels, 3 groups."""

    def __init__(self, batch: int, height: int, width: int) -> None:
        super().__init__()
        self.size = -(-height // 16), -(-width // 16)
        n = self.size[0] * self.size[1]
        self.tensors = nn.ParameterList(
            [torch.randn(batch, 12, n, 32) for _ in 'qkv']
            + [torch.randn(12, 27, 27), torch.rand(batch, 3, n, 2) * 2 - 1]
        )

    def forward(self, x: Tensor) -> tuple[Tensor]:
        q, k, v, table, locations = self.tensors
        if torch.is_autocast_enabled(x.device.type):  # the dtype of the projections before it
            q, k, v = (t.to(torch.get_autocast_dtype(x.device.type)) for t in (q, k, v))
        axes = (query_coordinates(n, 'centers', locations) for n in self.size)
        return (deformable_attention(q, k, v, table, locations, *axes),)


def parse_model(text: str) -> tuple[str, str]:
    """``NAME[:BACKEND]`` or ``CONFIG[:BACKEND]`` -> (name or config file, backend).

    Raises:
        UserError: The model, its config file or the backend does not exist, or the model has no such backend.
    """
    name, _, backend = text.partition(':')
    if backend and backend not in BACKENDS:
        raise UserError(f'{text}: the backend must be one of {", ".join(BACKENDS)}')
    if name not in ZOO and not name.endswith('.py'):
        raise UserError(f'{name} is neither a config file nor one of {", ".join(ZOO)}')
    _, backbone = _scope_and_backbone(name)
    available = ('auto', *_BACKENDS_OF.get(backbone['type'], ()))
    if backend and backend not in available:
        raise UserError(f'{text}: {name} has only the backends {", ".join(available)}')
    return name, backend or 'auto'


@functools.cache
def _scope_and_backbone(name: str) -> tuple[str, dict]:
    """Return the scope and the config of a backbone, by its name or config file."""
    if name in ZOO:
        return 'mmdet', ZOO[name]
    config = load_config(name, {})
    adapt_to_device(config, 'none')
    if not isinstance(config.model.get('backbone'), dict):
        raise UserError(f'the model of {name} has no backbone')
    return config.default_scope, dict(config.model.backbone, init_cfg=None)


def build(case: Case) -> nn.Module:
    """Build the model on its device, with the same weights each time."""
    torch.manual_seed(0)
    if case.model == 'attention':
        model = Attention(case.batch, case.height, case.width)
    else:
        scope, backbone = _scope_and_backbone(case.model)
        if case.backend == 'reference':  # plain PyTorch keeps all activations
            backbone = dict(backbone, recompute_activation=False)
        model = _build(scope, backbone)
    model.to(case.device)
    model.train(case.mode == 'training')  # not chained: train() of some mmdet backbones returns None
    if not case.compile:
        return model
    # The models share their code, and each one counts as a recompilation of it.
    torch._dynamo.config.recompile_limit = 1000
    # Compile in this process: the time of worker processes would count as that of others.
    torch._inductor.config.compile_threads = 1
    return torch.compile(model, dynamic=True)


def _build(scope: str, backbone: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope(scope):
        return _registry(scope).build(dict(backbone))


def _registry(scope: str) -> Registry:
    """Return the models of a package, and import them."""
    registry = importlib.import_module(f'{scope}.registry').MODELS
    registry.import_from_location()
    return registry


class Runner:
    """Run one case repeatedly."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = build(case)
        self.x = torch.randn(case.batch, 3, case.height, case.width, device=case.device)
        self.dtype = getattr(torch, case.dtype)

    def step(self) -> float:
        """Run forward, and backward in training; return the seconds."""
        self._synchronize()
        start = time.perf_counter()
        with use_backend(self.case.backend), torch.set_grad_enabled(self.case.mode == 'training'):
            with torch.autocast(self.case.device, self.dtype, enabled=self.dtype != torch.float32):
                outs = self.model(self.x)
            if self.case.mode == 'training':
                sum(out.float().square().mean() for out in outs).backward()
        self._synchronize()
        seconds = time.perf_counter() - start
        self.model.zero_grad(set_to_none=True)
        return seconds

    def _synchronize(self) -> None:
        if self.case.device == 'cuda':
            torch.cuda.synchronize()


def measure_times(cases: list[Case], warmup: int, repeats: int, report: Callable[[], None]) -> list[Measurement]:
    """Run the cases in turns, so that a disturbance affects all of them; call ``report`` after each run."""
    if any(case.compile for case in cases):
        torch._dynamo.reset()  # so that the first call of each compiles
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
        torch.cuda.empty_cache()  # for the processes that measure the peaks
    return results


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def measure_peak(case: Case) -> float:
    """Return the MiB that model, gradients and one step need at most, without the libraries.

    On CUDA this is the memory that torch allocates. On a CPU it is the resident memory of the process, which has to be
    a new one (see ``_peak.py``); with torch.compile it includes the compiler's.
    """
    if case.device == 'cuda':
        runner = Runner(case)
        runner.step()  # allocates the workspaces of the libraries
        torch.cuda.reset_peak_memory_stats()
        runner.step()
        return torch.cuda.max_memory_allocated() / 2**20
    _registry(_scope_and_backbone(case.model)[0])  # so that its imports do not count
    before = resident_mib()
    Runner(case).step()
    return peak_resident_mib() - before
