"""Compile the Triton kernels for GPUs that are not there, and report the resources that they take."""

import inspect
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .triton_attention import DTYPES, HEAD_DIMS, tile

# Compute capability: bytes of shared memory that a thread block can have.
ARCHITECTURES = {80: 163 * 1024, 90: 227 * 1024, 120: 99 * 1024}
KERNELS = ('forward', 'backward_queries', 'backward_keys', 'backward_table')
_TYPES = {torch.float32: 'fp32', torch.float16: 'fp16', torch.bfloat16: 'bf16'}
_INPUTS = ('q', 'k', 'v', 'grad', 'out', 'd_q')  # and results in their dtype; other tensors are float32


@dataclass(frozen=True)
class Case:
    """A kernel for a dtype and channels a head."""

    kernel: str
    dtype: torch.dtype
    head_dim: int


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes: registers and spilled bytes of a thread, shared memory of a block in bytes."""

    registers: int
    spills: int
    shared: int


def cases() -> list[Case]:
    """Return the tuning table: every kernel, dtype and number of channels."""
    return [Case(kernel, dtype, head_dim) for kernel in KERNELS for dtype in DTYPES for head_dim in HEAD_DIMS]


def compile_for(case: Case, architecture: int, ones: Sequence[str] = ()) -> Resources:
    """Compile a kernel without a GPU.

    Args:
        case: Kernel, dtype and number of channels.
        architecture: 10 times the compute capability.
        ones: Integer arguments that are 1, which triton makes constants.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from . import triton_kernels

    kernel, constants = getattr(triton_kernels, case.kernel), tile(case.kernel, case.dtype, case.head_dim)
    options = {name: constants.pop(name) for name in ('num_warps', 'num_stages')}
    constants |= dict.fromkeys(ones, 1)
    names, pointers = kernel.arg_names, _pointers(kernel.fn)
    signature = dict.fromkeys(names, 'i32') | {'scale': 'fp32'} | dict.fromkeys(constants, 'constexpr')
    for name in pointers:
        signature[name] = '*' + _TYPES[case.dtype if name in _INPUTS else torch.float32]
    source = ASTSource(
        fn=kernel,
        signature={name: signature[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [['tt.divisibility', 16]] for name in pointers},  # as torch's allocator gives them
    )
    built = triton.compile(source, target=GPUTarget('cuda', architecture, 32), options=options)
    return _resources(built.asm['cubin'], built.metadata.shared, Path(triton.__file__).parent)


def _pointers(function: Any) -> list[str]:
    """Return the names of a kernel's arguments before ``scale``, which are tensors."""
    names = list(inspect.signature(function).parameters)
    return names[: names.index('scale')]


def _resources(cubin: bytes, shared: int, triton_directory: Path) -> Resources:
    """Read what a compiled kernel takes, by the ``cuobjdump`` that is part of triton."""
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(cubin)
        file.flush()
        command = [str(triton_directory / 'backends/nvidia/bin/cuobjdump'), '-res-usage', file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r'REG:(\d+) STACK:(\d+)', done.stdout + done.stderr)
    if found is None:
        raise RuntimeError(f'cuobjdump printed no registers: {done.stdout}{done.stderr}')
    return Resources(int(found[1]), int(found[2]), shared)


def compile_report(
    architectures: Sequence[int] = tuple(ARCHITECTURES), chosen: Sequence[Case] | None = None
) -> Iterator[dict[str, Any]]:
    """Compile every kernel at every tile for every architecture; yield a row each.

    A row has ``kernel``, ``architecture``, ``dtype``, ``head_dim``, ``tile`` (with warps and stages),
    ``registers`` and ``spills`` (bytes) of a thread, ``shared`` and ``shared_limit`` (bytes) of a block.
    """
    for architecture in architectures:
        for case in cases() if chosen is None else chosen:
            got, constants = compile_for(case, architecture), tile(case.kernel, case.dtype, case.head_dim)
            yield dict(
                kernel=case.kernel,
                architecture=f'sm_{architecture}',
                dtype=str(case.dtype).removeprefix('torch.'),
                head_dim=case.head_dim,
                tile={name: n for name, n in constants.items() if name not in ('D', 'PRECISION')},
                registers=got.registers,
                spills=got.spills,
                shared=got.shared,
                shared_limit=ARCHITECTURES[architecture],
            )
