"""What the ops do while a model is traced or exported: sizes stay symbolic, and nothing branches on them.

``torch.jit.trace`` and the ONNX exporter record the operations on one example. A size that leaves torch (as an ``int``,
in a comparison, in ``torch.tensor([h, w])``, as an argument of a custom op) is a constant of the recorded model, which
is then wrong at another size. :func:`is_tracing` selects code without such constants, and default backends that every
tracer knows. Outside of tracing nothing changes.
"""

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.jit import TracerWarning  # type: ignore[attr-defined]

P = ParamSpec('P')
T = TypeVar('T')
_shared: dict[Hashable, Any] | None = None


@contextmanager
def sharing() -> Iterator[None]:
    """Within the context, an export holds what :func:`shared` functions compute from sizes once for all blocks."""
    global _shared
    before, _shared = _shared, {}
    try:
        yield
    finally:
        _shared = before


def shared(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function whose result depends on sizes and on the dtypes and devices of tensors only."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if _shared is None or not torch.compiler.is_exporting():
            return function(*args, **kwargs)
        # A symbolic size has no hash; as a string it is its formula.
        described = [(a.dtype, a.device) if isinstance(a, Tensor) else str(a) for a in (*args, *kwargs.values())]
        key = function, *described
        if key not in _shared:
            _shared[key] = function(*args, **kwargs)
        return _shared[key]

    return call


def is_recorded_by_jit() -> bool:
    """Return whether ``torch.jit.trace``, which takes numbers for constants, records the current call."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def is_tracing() -> bool:
    """Return whether ``torch.jit.trace``, ``torch.export`` or an ONNX exporter records the current call."""
    return is_recorded_by_jit() or torch.compiler.is_exporting()


def sizes_tensor(sizes: Sequence[int], like: Tensor) -> Tensor:
    """Return sizes as a tensor (n,) with the dtype and device of ``like``; a traced model computes it again.

    Filled on its device: ``torch.tensor`` copies from the CPU, which waits until the GPU has caught up.
    """
    return torch.cat([torch.full((1,), n, dtype=like.dtype, device=like.device) for n in sizes])


def constant_size(t: Tensor, dim: int) -> int:
    """Return a size that is the same for all inputs, such as that of a parameter, as a number.

    It may also be used for a check of the example that a model is traced with.
    """
    if not is_recorded_by_jit():
        return t.shape[dim]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', TracerWarning)
        return int(t.shape[dim])


def at_least(n: Any, minimum: int) -> Any:
    """Return ``max(n, minimum)``, symbolic while tracing."""
    return n.clamp(min=minimum) if isinstance(n, Tensor) else torch.sym_max(n, minimum)


def ceil_div(n: int, divisor: int) -> int:
    """Return ``n / divisor`` rounded up, for ``n`` of at least 1; exporters simplify a chain of this form to one."""
    return (n - 1) // divisor + 1


def unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Return ``x.unflatten(dim, sizes)``; the ONNX exporter would take the sizes of that method for constants."""
    if not is_recorded_by_jit():
        return x.unflatten(dim, sizes)
    dim %= x.dim()
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def adaptive_avg_pool2d(x: Tensor, size: int) -> Tensor:
    """Return the means (B, C, size, size) of (B, C, H, W), as torch's function does, which ONNX does not have."""
    if not is_tracing():
        return F.adaptive_avg_pool2d(x, size)
    cells = torch.arange(size, device=x.device)[:, None]
    weights = []  # of each row, then of each column, (size, n)
    for n in x.shape[-2:]:
        pixels = torch.arange(n, device=x.device)
        inside = (pixels >= cells * n // size) & (pixels < ((cells + 1) * n + size - 1) // size)
        weights.append(inside.to(x.dtype) / inside.sum(dim=1, keepdim=True))
    return weights[0] @ x @ weights[1].T
