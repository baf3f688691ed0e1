"""Backend selection: by argument, by context manager, by environment variable."""

import runpy
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from devices import CalledOps

from deformable_vit import ops
from deformable_vit.ops import current_backend, use_backend

ALL = 'auto, reference, chunked, products, separable, triton, grid_sample, mmcv'
q = torch.zeros(1, 2, 4, 8)
maps = torch.zeros(1, 2, 2, 2, 8)
features = torch.zeros(1, 8, 4, 4)
CALLS: dict[str, Callable[..., torch.Tensor]] = {
    'dense_attention': partial(ops.dense_attention, q, q, q),
    'deformable_attention': partial(
        ops.deformable_attention,
        *(q, q, q, torch.zeros(2, 3, 3), torch.zeros(1, 1, 4, 2), torch.zeros(2), torch.zeros(2)),
    ),
    'deformable_sampling': partial(ops.deformable_sampling, features, torch.zeros(1, 2, 2, 2, 2)),
    'deformable_patch_projection': partial(
        ops.deformable_patch_projection, features, torch.zeros(1, 4, 2, 2), torch.zeros(4, 8, 3, 3), torch.zeros(4)
    ),
    'window_attention': partial(ops.window_attention, maps, maps, maps, torch.zeros(2, 3, 3)),
    'neighborhood_attention': partial(ops.neighborhood_attention, maps, maps, maps, torch.zeros(2, 5, 5)),
}
# Ops that torch runs for a backend and for no other of the same op.
MARKS = {
    ('dense_attention', 'auto'): 'scaled_dot_product',
    ('deformable_attention', 'chunked'): 'scaled_dot_product',
    ('deformable_attention', 'products'): 'aten::clamp_',
    ('deformable_attention', 'separable'): 'deformable_vit::separable_attention',
    ('deformable_sampling', 'grid_sample'): 'grid_sampler_2d',
    ('deformable_patch_projection', 'grid_sample'): 'grid_sampler_2d',
    ('deformable_patch_projection', 'mmcv'): 'deformable_vit::deform_conv',
    ('window_attention', 'auto'): 'deformable_vit::tiles',
    ('neighborhood_attention', 'auto'): 'deformable_vit::tiles',
}


def called_ops(function: Callable[..., torch.Tensor], **kwargs: str) -> str:
    """Return the names of the ops that torch dispatches in a call."""
    with CalledOps() as ops:
        function(**kwargs)
    return ' '.join(ops.counts)


def test_argument_and_context_manager_select_the_backend() -> None:
    for (op, backend), mark in MARKS.items():
        assert mark in called_ops(CALLS[op], backend=backend)
        assert mark not in called_ops(CALLS[op], backend='reference')
        with use_backend(backend):
            assert mark in called_ops(CALLS[op])
            assert mark not in called_ops(CALLS[op], backend='reference')
        with use_backend('reference'):
            assert mark not in called_ops(CALLS[op])


def test_a_backend_that_an_op_lacks() -> None:
    """As an argument it is an error, as the default it stands for auto."""
    for op, call in CALLS.items():
        for backend in ('separable' if op == 'deformable_patch_projection' else 'mmcv', 'fastest'):
            with pytest.raises(ValueError, match=f"{op} has the backends auto, reference.*, got '{backend}'"):
                call(backend=backend)
        with use_backend('separable' if op == 'deformable_patch_projection' else 'mmcv'):
            assert called_ops(call) == called_ops(call, backend='auto')


def test_small_inputs_are_chunked_and_large_ones_separable_on_a_cpu() -> None:
    small = CALLS['deformable_attention']
    assert 'separable' not in called_ops(small)
    n = 4100  # 4100 x 4100 scores are more than one chunk holds
    large = torch.zeros(1, 1, n, 1)
    args = (torch.zeros(1, 3, 3), torch.zeros(1, 1, n, 2), torch.zeros(41), torch.zeros(100))
    assert 'separable' in called_ops(partial(ops.deformable_attention, large, large, large, *args))


def test_default_ends_with_its_context() -> None:
    assert current_backend() == 'auto'
    with use_backend('chunked'):
        with use_backend('reference'):
            assert current_backend() == 'reference'
        assert current_backend() == 'chunked'
    assert current_backend() == 'auto'
    with pytest.raises(ValueError, match=f"backend must be one of {ALL}, got 'fast'"):
        use_backend('fast').__enter__()


def read_default() -> str:
    """Return what the module makes of the environment when it is imported."""
    with warnings.catch_warnings(action='ignore'):  # runpy's, about a module that is imported already
        return runpy.run_module(f'{ops.__name__}.backends')['current_backend']()


def test_environment_variable_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, backend in (('reference', 'reference'), ('separable', 'separable'), ('', 'auto')):
        monkeypatch.setenv('DEFORMABLE_VIT_BACKEND', value)
        assert read_default() == backend
    monkeypatch.setenv('DEFORMABLE_VIT_BACKEND', 'slow')
    with pytest.raises(ValueError, match=f"^DEFORMABLE_VIT_BACKEND must be one of {ALL}, got 'slow'$"):
        read_default()


@pytest.mark.filterwarnings('ignore:.*torch.jit.trace:DeprecationWarning')
def test_backends_with_constant_sizes_cannot_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    for op, backend in (
        ('deformable_patch_projection', 'mmcv'),
        ('deformable_attention', 'chunked'),
        ('deformable_attention', 'separable'),
    ):
        message = f"traced with the backend '{backend}' would be wrong at other sizes; use auto"
        with use_backend(backend), pytest.raises(ValueError, match=message):
            torch.jit.trace(lambda x, op=op: CALLS[op]() + x, torch.zeros(1), check_trace=False)
        with monkeypatch.context() as exporting, use_backend(backend):
            exporting.setattr(torch.compiler, 'is_exporting', lambda: True)
            with pytest.raises(ValueError, match=message):
                CALLS[op]()
