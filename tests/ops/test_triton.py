"""The triton backend: its kernels in the interpreter, compiled for GPUs that are not here, and its errors."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from devices import LOWER_PRECISIONS, CalledOps
from running import ENVIRONMENT
from triton_cases import assert_equals_reference, away_from_entries, inputs

from deformable_vit.ops import deformable_attention, triton_attention, use_backend
from deformable_vit.ops.triton_compile import ARCHITECTURES, KERNELS, Case, cases, compile_for, compile_report

needs_triton = pytest.mark.skipif(not triton_attention.HAS_TRITON, reason='needs triton')


def arguments(device: str = 'cpu') -> list[torch.Tensor]:
    q, table = torch.zeros(1, 2, 6, 16, device=device), torch.zeros(2, 5, 5, device=device)
    return [q, q, q, table, torch.zeros(1, 1, 6, 2, device=device), torch.zeros(2), torch.zeros(3)]


@needs_triton
@pytest.mark.slow
def test_the_kernels_equal_reference_in_the_interpreter() -> None:
    """In another process, as the interpreter is selected before triton is imported."""
    tests = Path(__file__).with_name('interpreted_triton.py')
    command = [sys.executable, '-m', 'pytest', '-n', '0', '-q', '--durations=3', tests]
    environment = ENVIRONMENT | {'TRITON_INTERPRET': '1'}
    done = subprocess.run(command, env=environment, cwd=tests.parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ' passed' in done.stdout
    assert 'skipped' not in done.stdout


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('precision', LOWER_PRECISIONS)
def test_the_kernels_equal_reference_on_a_gpu(precision: torch.dtype) -> None:
    for size, keys, table, d in (((7, 7), 49, (13, 13), 32), ((3, 84), 70, (27, 27), 16), ((5, 9), 40, (9, 111), 64)):
        assert_equals_reference(away_from_entries(inputs(size, keys, table, batch=2, d=d)), precision, 'cuda')


class Recorded:
    """A kernel that records the tensors of its launches instead of running."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self.tensors = tensors

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *args, **_: self.tensors.extend(t for t in args if isinstance(t, torch.Tensor))


@needs_triton
@pytest.mark.parametrize(
    ('size', 'keys', 'heads', 'groups', 'table'),
    [
        ((50, 84), 4200, 12, 3, 27),
        ((25, 42), 1050, 24, 6, 13),
        ((200, 336), 1050, 2, 1, 111),
        ((100, 168), 1050, 4, 2, 55),
        ((50, 84), 1050, 8, 4, 27),
        ((25, 42), 1050, 16, 8, 13),
    ],
)
def test_layers_at_800_x_1344_take_less_than_100_mb(
    size: tuple[int, int], keys: int, heads: int, groups: int, table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of DAT-T and DAT-T++, forward and backward in bfloat16, beyond their arguments."""
    from deformable_vit.ops import triton_kernels

    tensors: list[torch.Tensor] = []
    for kernel in KERNELS:
        monkeypatch.setattr(triton_kernels, kernel, Recorded(tensors))
    q, (k, v) = torch.empty(1, heads, size[0] * size[1], 32), torch.empty(2, 1, heads, keys, 32)
    args = [*(t.bfloat16() for t in (q, k, v)), torch.empty(heads, table, table), torch.empty(1, groups, keys, 2)]
    args = [t.requires_grad_() for t in args] + [torch.zeros(n) for n in size]
    out = torch.ops.deformable_vit.triton_attention(*args)[0]
    out.backward(out)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    extra = sum(storages.values()) - sum(t.untyped_storage().nbytes() for t in args)
    assert 1e6 < extra < 100e6


@pytest.fixture
def _new_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compile again what other runs have compiled."""
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))


def assert_within_limits(architecture: int, chosen: list[Case]) -> None:
    rows = list(compile_report([architecture], chosen))
    assert len(rows) == len(chosen)
    for row in rows:
        assert row['spills'] == 0, row
        assert 32 <= row['registers'] <= 255, row
        assert 0 < row['shared'] <= ARCHITECTURES[architecture], row


@needs_triton
@pytest.mark.slow
@pytest.mark.usefixtures('_new_cache')
def test_kernels_of_half_precision_compile_without_spills() -> None:
    chosen = [case for case in cases() if case.dtype == torch.bfloat16 and case.head_dim == 32]
    assert {case.kernel for case in chosen} == set(KERNELS)
    assert_within_limits(80, chosen)


@needs_triton
@pytest.mark.nightly
@pytest.mark.usefixtures('_new_cache')
def test_kernels_compile_for_sizes_of_one() -> None:
    for kernel in KERNELS:
        queries = 'height' if kernel == 'backward_table' else 'queries'
        ones = queries, 'keys', 'width', 'heads', 'per_group', 'table_h', 'table_w'
        assert compile_for(Case(kernel, torch.float16, 16), 80, ones).spills == 0


@needs_triton
@pytest.mark.nightly
@pytest.mark.usefixtures('_new_cache')
@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_every_tile_compiles_without_spills(architecture: int) -> None:
    assert_within_limits(architecture, cases())


@pytest.mark.parametrize('size', [(7, 7), (14, 14), (28, 28), (25, 42), (50, 84), (42, 25), (100, 168)])
def test_queries_that_a_tile_does_not_divide_cost_less_than_a_third(size: tuple[int, int]) -> None:
    sizes = triton_attention.tile('backward_table', torch.bfloat16, 32)
    rows, columns = (-(-n // sizes[name]) * sizes[name] for n, name in zip(size, ('ROWS', 'COLUMNS'), strict=True))
    assert rows * columns * 3 < size[0] * size[1] * 4


def test_it_is_never_the_default() -> None:
    with CalledOps() as ops:
        deformable_attention(*arguments())
    assert ops.count('triton') == 0


def test_without_a_gpu_or_triton_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    call = arguments()
    monkeypatch.setattr(triton_attention, 'HAS_TRITON', True)
    with pytest.raises(
        ValueError, match="^deformable_attention: the backend 'triton' runs on CUDA, got .* cpu; use auto$"
    ):
        deformable_attention(*call, backend='triton')
    with use_backend('triton'), pytest.raises(ValueError, match='got tensors on cpu'):
        deformable_attention(*call)
    monkeypatch.setattr(triton_attention, 'HAS_TRITON', False)
    with pytest.raises(ValueError, match='needs triton, which is not installed; use auto'):
        deformable_attention(*call, backend='triton')


def test_an_old_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Query:
        dtype, shape, device = torch.float16, (1, 2, 6, 32), torch.device('cuda')

    monkeypatch.setattr(triton_attention, 'HAS_TRITON', True)
    for capability, reason in (((7, 5), '8.0 or newer, got 7.5'), ((8, 0), ''), ((12, 0), '')):
        gpu = SimpleNamespace(major=capability[0], minor=capability[1])
        monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda _, gpu=gpu: gpu)
        got = triton_attention.unsupported(Query())
        assert reason in got if reason else got == ''
