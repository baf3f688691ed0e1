"""Backends of whole backbones: what runs by default, what runs as reference, and how far it is from a backbone."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import build_small
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import deformable_vit
from deformable_vit.backbones import PyramidBackbone
from deformable_vit.ops import use_backend

Build = Callable[..., PyramidBackbone]


class _Functions(TorchFunctionMode):
    """Count calls of the functions that the reference implementations must not use."""

    def __init__(self, calls: Counter[str]) -> None:
        self.calls = calls

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.calls['scaled_dot_product_attention'] += 1
        elif func is F.grid_sample and not kwargs.get('align_corners'):
            self.calls['grid_sample backend'] += 1  # the reference reads with align_corners=True
        return func(*args, **kwargs)


class _CustomOps(TorchDispatchMode):
    """Count calls of this package's custom ops, by name."""

    def __init__(self, calls: Counter[str]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == 'deformable_vit':
            self.calls[func.name().split('::')[1]] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count, within the context, calls of torch's fused functions and of this package's custom ops."""
    calls: Counter[str] = Counter()
    with _Functions(calls), _CustomOps(calls):
        yield calls


def test_backends_compute_the_same_and_reference_uses_no_fast_op(small_backbone: Build) -> None:
    model, x = small_backbone().double().eval(), torch.randn(2, 3, 75, 107, dtype=torch.float64)
    with torch.no_grad():
        with counted_calls() as calls, use_backend('reference'):
            reference = model(x)
        assert not calls
        for backend in ('auto', 'separable', 'mmcv'):
            with use_backend(backend):
                outs = model(x)
            for a, b in zip(outs, reference, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
        for precision in (torch.float32, torch.bfloat16):
            with torch.autocast('cpu', precision, enabled=precision != torch.float32):
                outs = model.float()(x.float())
            # Norms of whole feature maps, which are continuous in every rounding. Each of the five blocks is worth a
            # thousand roundings to float32, as an op of devices.py, or ten to bfloat16.
            bound = 5 * (1000 * 2**-24 if precision == torch.float32 else 10 * 2**-8)
            for a, b in zip(outs, reference, strict=True):
                assert (a - b).norm() < bound * b.norm()


@pytest.mark.parametrize(
    ('name', 'ops'),
    [
        ('PVT', {'scaled_dot_product_attention'}),
        ('PVTv2', {'scaled_dot_product_attention'}),
        ('DPT', {'scaled_dot_product_attention', 'grid_sample backend'}),
        ('DAT', {'scaled_dot_product_attention', 'grid_sample backend', 'tiles', 'assemble'}),
        ('DAT++', {'scaled_dot_product_attention', 'grid_sample backend', 'tiles', 'assemble'}),
    ],
)
def test_ops_that_a_backbone_calls_by_default(name: str, ops: set[str]) -> None:
    """The counter of the other tests sees every op that is not a reference implementation."""
    model, x = build_small(name), torch.randn(1, 3, 64, 64)
    with counted_calls() as calls:
        outs = model(x)
    assert set(calls) == ops
    with counted_calls() as calls:
        outs[-1].sum().backward()
    assert set(calls) == {op for op in ops if op in ('tiles', 'assemble')}


def test_a_backend_applies_to_the_ops_that_have_it() -> None:
    """Other ops run their default."""
    ops = dict(mmcv='deform_conv', separable='separable_attention', chunked='scaled_dot_product_attention')
    for backend, op in ops.items():
        with torch.no_grad(), counted_calls() as calls, use_backend(backend):
            build_small('DAT')(torch.randn(1, 3, 96, 64))
        assert calls[op] > 0
        assert calls['tiles'] > 0
        assert bool(calls['separable_attention']) == (backend == 'separable')
        assert bool(calls['grid_sample backend']) == (backend != 'mmcv')


def test_half_precision_throughout(small_backbone: Build) -> None:
    """Weights and images in bfloat16, without autocast; coordinates stay in float32."""
    model, x = small_backbone().bfloat16(), torch.randn(1, 3, 64, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        for backend in ('auto', 'reference'):
            with use_backend(backend):
                outs = model(x)
            for out, exact in zip(outs, model.double()(x.double()), strict=True):
                assert (out - exact).norm() < 5 * 20 * 2**-8 * exact.norm()
            model.bfloat16()


@pytest.mark.parametrize('backend', ['reference', 'separable'])
def test_checkpointed_blocks_recompute_with_the_backend_of_forward(backend: str) -> None:
    """Also where backward runs after the context has ended."""
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build_small('DAT', with_cp=with_cp).double()
        with counted_calls() as forward, use_backend(backend):
            out = model(torch.ones(1, 3, 64, 64, dtype=torch.float64))[-1]
        with counted_calls() as backward:
            out.square().sum().backward()
        recomputed = with_cp and backend == 'separable'
        assert backward['separable_attention'] == (forward['separable_attention'] if recomputed else 0)
        assert backward['separable_attention_backward'] == forward['separable_attention']
        if backend == 'reference':
            assert not forward
            assert not backward
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def package_frames() -> list[tuple[str, str]]:
    """Return file and name of this package's functions on the stack, from ``PyramidBackbone.forward`` on."""
    frames, frame = [], sys._getframe()
    while not frames or frames[-1] is not PyramidBackbone.forward.__code__:
        frames.append(frame.f_code)
        frame = frame.f_back
    package = Path(deformable_vit.__file__).parent
    functions = [(Path(code.co_filename), code.co_qualname) for code in frames[::-1]]
    # Python 3.11 has a frame for a comprehension, later versions do not.
    return [
        (str(file.relative_to(package)), name)
        for file, name in functions
        if package in file.parents and not name.endswith('comp>')
    ]


@pytest.mark.parametrize('backend', ['auto', 'separable'])
@pytest.mark.parametrize('name', ['PVT', 'PVTv2', 'DPT', 'DAT', 'DAT++'])
def test_attention_is_at_most_six_frames_in_four_files_below_the_backbone(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames are those of this package, down to the one that calls torch for the softmax of attention."""
    stacks: dict[str, list[list[tuple[str, str]]]] = {'scaled_dot_product_attention': [], 'maximum': []}

    def recorded(function: str, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def record(*args: Any, **kwargs: Any) -> Tensor:
            stacks[function].append(package_frames())
            return call(*args, **kwargs)

        return record

    # maximum: of the online softmax of the separable backend
    for module, function in ((F, 'scaled_dot_product_attention'), (torch, 'maximum')):
        monkeypatch.setattr(module, function, recorded(function, getattr(module, function)))
    with torch.no_grad(), use_backend(backend):
        build_small(name)(torch.randn(1, 3, 64, 64))
    assert len(stacks['scaled_dot_product_attention']) + len(stacks['maximum']) >= 5
    assert bool(stacks['maximum']) == (backend == 'separable' and name.startswith('DAT'))
    for frames in stacks['scaled_dot_product_attention'] + stacks['maximum']:
        assert frames[0] == ('backbones/base.py', 'PyramidBackbone.forward')
        assert len(frames) <= 6, frames
        assert len({file for file, _ in frames}) <= 4, frames
