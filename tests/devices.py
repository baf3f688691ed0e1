"""Comparison of a function with its reference on every available device, and the ops that a function calls."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# For ``pytest.mark.parametrize('device', DEVICES)``.
_needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
DEVICES = ['cpu', pytest.param('cuda', marks=[pytest.mark.gpu, _needs_cuda])]
LOWER_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
# Bounds of |difference| / |result|, with norms of whole tensors, for values of order 1. They are worst cases of
# rounding, a small multiple of what is usual, and hold in any order of summation: n float32 terms round by at most
# n * 2^-24 of the sum of their magnitudes, which is about sqrt(n) times the norm of a sum of independent terms, and no
# op of these tests sums more than 100 terms on the way to a result. In half precision, under autocast, products are
# summed in float32, and at most eight values are rounded on the way.
ROUNDING = {torch.float32: 1000 * 2**-24, torch.float16: 8 * 2**-11, torch.bfloat16: 8 * 2**-8}


def within_cells(last: int, shape: tuple[int, ...]) -> Tensor:
    """Return random fractional indices, 0 to ``last`` + 1, at least a tenth away from whole numbers.

    At whole numbers the gradient of a linear interpolation jumps, and rounding would decide on which side an index is.
    """
    return torch.randint(0, last + 1, shape) + 0.1 + 0.8 * torch.rand(shape)


def assert_same_function(
    function: Callable[..., Tensor],
    expected: Callable[..., Tensor],
    args: Sequence[Tensor],
    precision: torch.dtype = torch.float64,
    device: str = 'cpu',
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

    def check(got: Tensor, want: Tensor, what: str) -> None:
        difference = got.double() - want
        if precision == torch.float64:
            error, bound = difference.abs().max().item() / max(want.abs().max().item(), 1), 1e-10
        else:
            error = difference.norm().item() / max(want.norm().item(), want.numel() ** 0.5)
            bound = ROUNDING[precision]
        assert error <= bound, f'{what} differs by {error:.2g} in {precision}'

    check(out, right, 'output')
    cotangent = torch.randn(right.shape, generator=torch.Generator().manual_seed(1)).to(device)
    grads = torch.autograd.grad((out.to(wide) * cotangent.to(wide)).sum(), args)
    wanted = torch.autograd.grad((right * cotangent).sum(), exact_args)
    for i, (grad, want) in enumerate(zip(grads, wanted, strict=True)):
        assert grad.isfinite().all()
        check(grad, want, f'gradient of argument {i}')


class CalledOps(TorchDispatchMode):
    """Count, within a context, the ops that torch dispatches, such as ``aten::grid_sampler_2d``."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))

    def count(self, part: str) -> int:
        """Return the number of calls of ops with this part in their name."""
        return sum(n for name, n in self.counts.items() if part in name)
