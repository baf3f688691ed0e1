"""Backend selection, shared by all ops.

Every op takes ``backend=None``, which stands for the default. The default is ``auto`` unless the environment variable
``DEFORMABLE_VIT_BACKEND`` or the context manager :func:`use_backend` names another one:

- ``auto``: the fastest backend for the device and the input size; while a model is traced or exported, one whose sizes
  stay symbolic (:mod:`.tracing`).
- ``reference``: plain PyTorch that follows the formulas step by step, see :mod:`.reference`.
- ``chunked``: deformable attention by ``scaled_dot_product_attention``, a chunk of query rows at a time.
- ``products``: deformable attention by ``scaled_dot_product_attention``, with the relative position bias as matrix
  products: the default on CUDA, not yet measured on a GPU.
- ``separable``: the same products in chunks of keys, with their gradients written out, for large inputs on a CPU.
- ``triton``: deformable attention by fused kernels for NVIDIA GPUs, which ``auto`` never selects; not yet
  measured on a GPU.
- ``grid_sample``: deformable sampling by ``grid_sample``, and patches projected by a matrix product.
- ``mmcv``: deformable patches sampled and projected by mmcv's compiled deformable convolution.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from .tracing import is_tracing

BACKENDS = ('auto', 'reference', 'chunked', 'products', 'separable', 'triton', 'grid_sample', 'mmcv')
# Their custom ops and chunks take sizes as numbers, which a tracer would record as constants.
UNTRACEABLE = ('chunked', 'products', 'separable', 'triton', 'mmcv')
VARIABLE = 'DEFORMABLE_VIT_BACKEND'

# Validated on use rather than on import, so that a program can report a wrong value in its own way.
_default = os.environ.get(VARIABLE) or 'auto'


def _validate(backend: str, name: str) -> str:
    if backend not in BACKENDS:
        raise ValueError(f'{name} must be one of {", ".join(BACKENDS)}, got {backend!r}')
    return backend


def current_backend() -> str:
    """Return the default backend.

    Raises:
        ValueError: The environment variable names an unknown backend.
    """
    return _validate(_default, VARIABLE)


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Set the default backend of all threads within a context.

    An op without this backend runs ``auto``. Backward uses the backend of forward, also after the context has ended.

    Raises:
        ValueError: The backend is unknown.
    """
    global _default  # a plain global, because torch.compile guards on it and context variables break its graphs
    before, _default = _default, _validate(backend, 'backend')
    try:
        yield
    finally:
        _default = before


def select_backend(op: str, backend: str | None, available: tuple[str, ...]) -> str:
    """Return the backend that a call of an op runs.

    Args:
        op: Name of the op, for messages.
        backend: The caller's choice; None for the default.
        available: Backends that the op has besides ``auto``.

    Raises:
        ValueError: The op does not have the caller's choice, or a model is traced or exported with it.
    """
    if backend is None:
        backend = current_backend()
        backend = backend if backend in available else 'auto'
    elif backend != 'auto' and backend not in available:
        raise ValueError(f'{op} has the backends auto, {", ".join(available)}, got {backend!r}')
    if backend in UNTRACEABLE and is_tracing():
        raise ValueError(
            f'{op}: a model that is traced with the backend {backend!r} would be wrong at other sizes; use auto'
        )
    return backend


def recompute_with_backend(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Call a function without keeping its activations; backward recomputes them with the backend used in forward."""
    if torch.compiler.is_compiling():
        # torch.compile accepts no context_fn; forward and backward are one graph with one backend there.
        return recompute_in_backward(function, *args, use_reentrant=False)
    return recompute_in_backward(
        function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), use_backend(current_backend()))
    )
