"""Backends of whole backbones: what runs by default, what runs as reference, and how far apart they are."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from small_models import build_small
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


def test_ops_that_a_backbone_calls_by_default() -> None:
    """The counter of the other tests sees every op that is not a reference implementation."""
    fused, local = {'scaled_dot_product_attention'}, {'tiles', 'assemble'}
    sampling = fused | {'grid_sample backend'}
    ops = {'PVT': fused, 'PVTv2': fused, 'DPT': sampling, 'DAT': sampling | local, 'DAT++': sampling | local}
    for name, expected in ops.items():
        with counted_calls() as calls:
            outs = build_small(name)(torch.randn(1, 3, 64, 64))
        assert set(calls) == expected
        with counted_calls() as calls:
            outs[-1].sum().backward()
        assert set(calls) == expected & local


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


def test_recomputed_blocks_use_the_backend_of_forward() -> None:
    """Also where backward runs after the context has ended."""
    for backend in ('reference', 'separable'):
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
            assert bool(forward) == bool(backward) == (backend == 'separable')
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
