"""Validation of constructor arguments that the backbones share."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch

NUM_STAGES = 4
MIN_INPUT_SIZE = 32
# Keys of a row whose numbers may have a fraction.
_REAL = ('layer_scale', 'mlp_ratios', 'offset_ranges')
# The rows ``test`` of the arch tables: small models for tests and demos.
TEST_ARCH: Mapping[str, tuple[int, ...]] = dict(
    embed_dims=(64, 96, 128, 160), depths=(1, 2, 2, 1), num_heads=(1, 2, 4, 5), mlp_ratios=(4, 4, 4, 4)
)


def check_arch(name: str, arch: str | Mapping[str, Any], zoo: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the row of an arch table that ``arch`` stands for.

    Args:
        name: Name of the backbone, for messages.
        arch: A name in the table, a dict with the keys of a row, or a dict with ``like``, a name, and what differs.
        zoo: The table.

    Raises:
        ValueError: The name is unknown, the keys are not those of a row, a value has another type, there is not one
            value per stage, or the heads do not divide the channels.
    """
    if not isinstance(arch, (str, Mapping)):
        raise ValueError(f'{name}: arch must be one of {", ".join(zoo)}, or a dict, got {arch!r}')
    like = arch if isinstance(arch, str) else arch.get('like')
    if like is not None and like not in zoo:
        raise ValueError(
            f'{name} has no arch {like!r}; choose from {", ".join(zoo)}, or pass a dict with the same keys, or with '
            'like=NAME and what differs'
        )
    if isinstance(arch, str):
        return dict(zoo[arch])
    if like is not None:
        arch = {**zoo[like], **{key: value for key, value in arch.items() if key != 'like'}}
    row = next(iter(zoo.values()))
    if set(arch) != set(row):
        missing, unknown = sorted(set(row) - set(arch)), sorted(set(arch) - set(row))
        raise ValueError(f'{name}: arch needs exactly the keys {", ".join(row)}; {missing=}, {unknown=}')
    for key, value in arch.items():
        _check_value(name, key, value, row[key])
    for i, (dim, heads) in enumerate(zip(arch['embed_dims'], arch['num_heads'], strict=True)):
        if heads < 1 or dim % heads:
            raise ValueError(f'{name}: {heads} heads do not divide {dim} channels in stage {i + 1}; change arch')
    return dict(arch)


def _check_value(name: str, key: str, value: Any, example: Any) -> None:
    """Compare the type and length of a value of a row with those of another row."""
    if isinstance(example, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != NUM_STAGES:
            raise ValueError(
                f'{name}: arch[{key!r}] needs {NUM_STAGES} values, one per stage, got {value!r}; the first arch of the '
                f'table has {example}'
            )
        for item in value:
            _check_value(name, key, item, example[0])
        return
    number = Real if key in _REAL else Integral
    kind, words = {bool: (bool, 'True or False'), str: (str, 'a string')}.get(type(example), (number, 'a number'))
    if not isinstance(value, kind) or isinstance(value, bool) != isinstance(example, bool):
        words = 'an integer' if kind is Integral else words
        raise ValueError(f'{name}: arch[{key!r}] needs {words}, such as {example!r}, got {value!r}')


def check_img_size(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Return ``pretrain_img_size``, an int or a pair, as (height, width).

    Raises:
        ValueError: It is too small.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < MIN_INPUT_SIZE:
        raise ValueError(f'{name}: pretrain_img_size must be at least {MIN_INPUT_SIZE} pixels, got {size}')
    return height, width


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Return the stochastic depth rates of each stage's blocks, from 0 at the first block linearly to ``rate``.

    Raises:
        ValueError: The rate is out of range.
    """
    if not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate must be in [0, 1), got {rate}')
    rates = torch.linspace(0, rate, sum(depths), device='cpu').tolist()
    return [[rates.pop(0) for _ in range(depth)] for depth in depths]
