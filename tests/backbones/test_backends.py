"""Backends of whole backbones: what runs by default, what runs as reference, and how far apart they are."""

from collections.abc import Callable

import torch
from devices import CalledOps
from small_models import build_small

from deformable_vit.backbones import PyramidBackbone
from deformable_vit.ops import use_backend

Build = Callable[..., PyramidBackbone]


def test_backends_compute_the_same_and_reference_uses_no_fast_op(small_backbone: Build) -> None:
    model, x = small_backbone().double().eval(), torch.randn(2, 3, 75, 107, dtype=torch.float64)
    with torch.no_grad():
        with CalledOps() as ops, use_backend('reference'):
            reference = model(x)
        assert ops.count('scaled_dot_product') == ops.count('deformable_vit::') == 0
        for backend in ('auto', 'products', 'separable', 'mmcv'):
            with use_backend(backend):
                outs = model(x)
            for a, b in zip(outs, reference, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
        for precision in (torch.float32, torch.bfloat16):
            with torch.autocast('cpu', precision, enabled=precision != torch.float32):
                outs = model.float()(x.float())
            # Norms of whole feature maps, which are continuous in every rounding. Each of the six blocks is worth a
            # thousand roundings to float32, as an op of devices.py, or ten to bfloat16.
            bound = 6 * (1000 * 2**-24 if precision == torch.float32 else 10 * 2**-8)
            for a, b in zip(outs, reference, strict=True):
                assert (a - b).norm() < bound * b.norm()


def test_ops_that_a_backbone_calls_by_default() -> None:
    sampling, local = {'grid_sampler_2d'}, {'deformable_vit::tiles', 'deformable_vit::assemble'}
    expected = {'PVT': set(), 'PVTv2': set(), 'DPT': sampling, 'DAT': sampling | local, 'DAT++': sampling | local}
    for name, ops in expected.items():
        with torch.no_grad(), CalledOps() as called:
            build_small(name)(torch.randn(1, 3, 64, 64))
        assert called.count('scaled_dot_product') > 0
        assert {op for op in sampling | local if called.count(op)} == ops
        assert called.count('deformable_vit::') == sum(called.count(op) for op in local)


def test_half_precision_throughout(small_backbone: Build) -> None:
    """Weights and images in bfloat16, without autocast; coordinates stay in float32."""
    model, x = small_backbone().bfloat16(), torch.randn(1, 3, 64, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        for backend in ('auto', 'reference'):
            with use_backend(backend):
                outs = model(x)
            for out, exact in zip(outs, model.double()(x.double()), strict=True):
                assert (out - exact).norm() < 6 * 20 * 2**-8 * exact.norm()
            model.bfloat16()


def test_recomputed_blocks_use_the_backend_of_forward() -> None:
    """Also where backward runs after the context has ended."""
    forward_op = 'deformable_vit::separable_attention'
    for backend in ('reference', 'separable'):
        gradients = []
        for with_cp in (False, True):
            torch.manual_seed(0)
            model = build_small('DAT', with_cp=with_cp).double()
            with CalledOps() as forward, use_backend(backend):
                out = model(torch.ones(1, 3, 64, 64, dtype=torch.float64))[-1]
            with CalledOps() as backward:
                out.square().sum().backward()
            calls = forward.counts[forward_op]
            assert bool(calls) == (backend == 'separable')
            assert backward.counts[f'{forward_op}_backward'] == calls
            assert backward.counts[forward_op] == (calls if with_cp else 0)
            if backend == 'reference':
                assert forward.count('deformable_vit::') == backward.count('deformable_vit::') == 0
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
