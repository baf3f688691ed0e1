"""The triton backend in Triton's interpreter, which a process selects before it imports triton; see test_triton.py.

The interpreter computes products and sums of bfloat16 with other roundings than GPUs, so these tests are in float32 and
float16.
"""

import inspect
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_global_attention import attention_inputs
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from triton_cases import assert_equals_reference, away_from_entries, inputs

from deformable_vit.ops import FLOP_FORMULAS, deformable_attention, key_grid, reference, triton_attention

if os.environ.get('TRITON_INTERPRET') != '1':
    pytest.skip('test_triton.py runs these tests in the interpreter', allow_module_level=True)

from triton.runtime.interpreter import interpreter_builder

from deformable_vit.ops import triton_kernels


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run few programs, which take turns here; still several parts of the queries."""
    monkeypatch.setattr(triton_attention, 'PROGRAMS', 16)


PRECISIONS = (torch.float32, torch.float16)
triton = partial(deformable_attention, backend='triton')


@pytest.mark.parametrize('precision', PRECISIONS)
def test_the_cases_of_all_backends(precision: torch.dtype) -> None:
    q, k, v, *others = attention_inputs()
    assert_equals_reference([*(t.repeat(1, 1, 1, 2) for t in (q, k, v)), *others], precision)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**16),
    precision=st.sampled_from(PRECISIONS),
    size=st.tuples(st.integers(1, 5), st.integers(1, 19)),
    keys=st.integers(1, 70),
    heads=st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    table=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    d=st.sampled_from([16, 32, 64]),
)
@example(0, torch.float32, (1, 1), 1, (2, 1), (1, 1), 16)
@example(0, torch.float16, (2, 84), 65, (1, 1), (27, 27), 32)
@example(0, torch.float32, (3, 6), 20, (2, 1), (20, 70), 16)  # the table's gradient in several parts
def test_any_size(
    seed: int,
    precision: torch.dtype,
    size: tuple[int, int],
    keys: int,
    heads: tuple[int, int],
    table: tuple[int, int],
    d: int,
) -> None:
    torch.manual_seed(seed)
    args = inputs(size, keys, table, heads, 1 + seed % 2, d)
    assert_equals_reference(away_from_entries(args), precision)


def test_on_entries_of_the_table_gradients_are_those_of_grid_sample() -> None:
    """As in a new model, whose offsets are zero; with coordinates that are exact in binary."""
    args = inputs((4, 8), 32, (7, 15), d=16)
    args[4] = key_grid(4, 8, 'centers', args[0]).flatten(0, 1).expand(1, 2, -1, -1).clone()
    assert_equals_reference(args, torch.float32)


def test_nan_reaches_the_output_of_its_group_alone() -> None:
    for index in (0, 4):  # a query, a location
        args = inputs((3, 5), 40, (7, 7), batch=2)
        args[index].view(-1)[0] = torch.nan
        out, expected = triton(*args), reference.deformable_attention(*args)
        assert torch.equal(out.isnan(), expected.isnan())
        torch.testing.assert_close(out[1:], expected[1:])


def test_results_are_the_same_in_each_run() -> None:
    args = [t.requires_grad_(i < 5) for i, t in enumerate(inputs((5, 20), 70, (9, 11), (2, 1)))]
    first, second = (torch.autograd.grad(triton(*args).square().sum(), args[:5]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


OUTPUTS = {
    'forward': ('out', 'lse'),
    'backward_queries': ('d_q',),
    'backward_keys': ('d_k', 'd_v', 'd_index'),
    'backward_table': ('d_table',),
}


class Checked:
    """A kernel whose reads and writes are compared with the memory of its arguments."""

    def __init__(self, kernel: Any, outputs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel, self.outputs, self.patch = kernel, outputs, monkeypatch
        self.programs = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return partial(self.launch, grid)

    def launch(self, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
        values = inspect.signature(self.kernel.fn).bind(
            *args, **{name: n for name, n in kwargs.items() if not name.startswith('num_')}
        )
        tensors = {name: t for name, t in values.arguments.items() if isinstance(t, Tensor)}
        # For each element of an output, the program that wrote it.
        writers = {name: np.full(tensors[name].numel(), -1) for name in self.outputs}
        load, store = interpreter_builder.create_masked_load, interpreter_builder.create_masked_store

        def find(pointers: np.ndarray, names: Any) -> tuple[str, np.ndarray]:
            for name in names:
                t = tensors[name]
                index = (pointers.astype(np.int64) - t.data_ptr()) // t.element_size()
                if ((index >= 0) & (index < t.numel())).all():
                    return name, index
            raise AssertionError(f'{self.kernel.__name__} accesses memory outside its arguments')

        def checked_load(ptrs: Any, mask: Any, *others: Any, **options: Any) -> Any:
            if mask.data.any():
                find(ptrs.data[mask.data], tensors)
            return load(ptrs, mask, *others, **options)

        def checked_store(ptrs: Any, value: Any, mask: Any, *others: Any, **options: Any) -> Any:
            if mask.data.any():
                name, index = find(ptrs.data[mask.data], self.outputs)
                program = int(np.ravel_multi_index(interpreter_builder.grid_idx, (*grid, 1)[:3]))
                assert np.isin(writers[name][index], (-1, program)).all(), f'two programs write {name}'
                assert len(np.unique(index)) == index.size
                writers[name][index] = program
            return store(ptrs, value, mask, *others, **options)

        with self.patch.context() as patch:
            patch.setattr(interpreter_builder, 'create_masked_load', checked_load)
            patch.setattr(interpreter_builder, 'create_masked_store', checked_store)
            self.kernel[grid](*args, **kwargs)
        for name in self.outputs:
            assert name == 'd_table' or (writers[name] >= 0).all(), f'parts of {name} are not written'
        self.programs += len({*np.concatenate(list(writers.values()))} - {-1})


def test_each_address_is_inside_a_tensor_and_written_by_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, keys, table in (((3, 20), 70, (9, 40)), ((34, 2), 3, (20, 3))):
        checked = {}
        for name, outputs in OUTPUTS.items():
            checked[name] = Checked(getattr(triton_kernels, name), outputs, monkeypatch)
        with monkeypatch.context() as patch:
            for name, kernel in checked.items():
                patch.setattr(triton_kernels, name, kernel)
            args = inputs(size, keys, table, (2, 2), batch=2)
            args[4] *= 3  # many far outside
            args = [t.requires_grad_(i < 5) for i, t in enumerate(args)]
            triton(*args).square().sum().backward()
        assert all(kernel.programs >= 4 for kernel in checked.values())  # batch and heads


def test_the_op_works_with_autograd_and_compile() -> None:
    *tensors, locations, y, x = inputs((3, 5), 6, (7, 7), batch=2)
    args = [t.requires_grad_() for t in (*tensors, locations)] + [y, x]
    torch.library.opcheck(torch.ops.deformable_vit.triton_attention.default, args)
    compiled = torch.compile(triton, backend='aot_eager', fullgraph=True)
    outs = [function(*args) for function in (compiled, triton)]
    torch.testing.assert_close(*outs)
    grads = [torch.autograd.grad(out.square().sum(), args[:5]) for out in outs]
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want)


def test_memory_kept_for_backward_has_nothing_of_queries_x_keys() -> None:
    saved: list[int] = []
    args = [t.requires_grad_(i < 5) for i, t in enumerate(inputs((10, 20), 150, (9, 9)))]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        triton(*args)
    assert len(saved) == 9
    assert max(saved) == args[0].numel()


def test_flops_do_not_depend_on_the_backend() -> None:
    args = inputs((3, 5), 6, (7, 7))
    totals = set()
    for backend in ('triton', 'separable'):
        with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
            deformable_attention(*args, backend=backend)
        totals.add(counter.get_total_flops())
    assert totals == {2 * 4 * 15 * 6 * (16 + 16 + 2)}


def test_arguments_that_the_kernels_do_not_take() -> None:
    args = inputs((2, 3), 4, (5, 5), d=16)
    with pytest.raises(ValueError, match='has kernels for 16, 32, 64 channels a head, got 8; use auto'):
        triton(*(t[..., :8] for t in args[:3]), *args[3:])
    with pytest.raises(ValueError, match='float16 or bfloat16, got float64; use auto'):
        triton(*(t.double() for t in args))
    with pytest.raises(ValueError, match='no gradient of the coordinates of the queries; use auto'):
        triton(*args[:5], args[5].requires_grad_(), args[6])


def test_parts_are_multiples_of_a_tile_and_enough_programs() -> None:
    for length, step, programs in ((50, 1, 792), (7, 2, 24), (200, 1, 34), (1, 2, 1)):
        size = triton_attention._part(length, step, programs)
        assert size % step == 0
        assert -(-length // size) * programs >= min(triton_attention.PROGRAMS // 2, -(-length // step) * programs)
