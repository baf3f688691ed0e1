"""Comparison of a function with its reference, values and gradients, on every available device."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

# For ``pytest.mark.parametrize('device', DEVICES)``.
_needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
DEVICES = ['cpu', pytest.param('cuda', marks=[pytest.mark.gpu, _needs_cuda])]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def assert_same_function(
    function: Callable[..., Tensor],
    expected: Callable[..., Tensor],
    args: Sequence[Tensor],
    precision: torch.dtype,
    device: str,
    exact: Sequence[int] = (),
) -> None:
    """Compare ``function`` in a precision with ``expected`` in float64, on the same values.

    Half precision runs as in training, under autocast, where matrix products are rounded. The arguments with indices in
    ``exact`` (coordinates) stay in float32; the others are rounded beforehand.
    """
    half = precision in (torch.float16, torch.bfloat16)
    wide = torch.float32 if half else precision
    args = [(a if i in exact or not half else a.to(precision)).to(wide).to(device) for i, a in enumerate(args)]
    args = [a.detach().requires_grad_() for a in args]
    exact_args = [a.detach().double().requires_grad_() for a in args]
    with torch.autocast(device, precision, enabled=half):
        rounded = [a if i in exact or not half else a.to(precision) for i, a in enumerate(args)]
        out = function(*rounded)
    right = expected(*exact_args)
    if half:
        assert out.dtype == precision
    assert out.shape == right.shape
    tolerance = TOLERANCE[precision]

    def check(got: Tensor, want: Tensor, what: str) -> None:
        scale = max(want.abs().max().item(), 1.0)
        difference = (got.double() - want).abs().max().item() / scale if want.numel() else 0.0
        assert difference <= tolerance, f'{what} differs by {difference:.2g} of {scale:.3g}'

    check(out, right, 'output')
    cotangent = torch.randn(right.shape, generator=torch.Generator().manual_seed(1)).to(device)
    grads = torch.autograd.grad((out.to(wide) * cotangent.to(wide)).sum(), args)
    wanted = torch.autograd.grad((right * cotangent).sum(), exact_args)
    for i, (grad, want) in enumerate(zip(grads, wanted, strict=True)):
        assert grad.isfinite().all()
        check(grad, want, f'gradient of argument {i}')
