"""What checkpoints hold besides tensors: log histories and numbers of numpy, without trust in the file.

mmengine saves its log histories as ``HistoryBuffer`` objects with numpy arrays. numpy's own unpickling takes the dtype,
the size and the bytes of an array from the file: objects (``dtype('O')``) become pointers made of file contents, and
the state of a dtype gives offsets outside the array. The classes here take the place of numpy's while a checkpoint is
read, and accept plain arrays of numbers only.

:func:`plain` makes numpy unnecessary: it turns what this project saves into tensors and Python's numbers and lists,
which ``torch.load(weights_only=True)`` reads anywhere. :func:`restore_histories` is its inverse.
"""

import math
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_CODES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
_HISTORY = {'log_history', 'count_history', 'max_length'}


class CheckpointDtype:
    """Stand in for ``numpy.dtype``: a numeric type and its byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if code not in _CODES:
            raise pickle.UnpicklingError(f'array of dtype {code!r}, which is not numeric')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) != 8 or state[0] != 3 or state[2:] != (None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError('array whose dtype has fields, an alignment or other attributes')
        if state[1] not in ('<', '>', '=', '|'):
            raise pickle.UnpicklingError(f'array of byte order {state[1]!r}')
        self.dtype = self.dtype.newbyteorder(state[1])


class CheckpointArray(np.ndarray[Any, Any]):
    """Stand in for ``numpy.ndarray``: an array that only :func:`_reconstruct` makes, and whose state is checked."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> 'CheckpointArray':
        raise pickle.UnpicklingError('array that is made in another way than numpy saves one')

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, fortran, data = state
        if type(dtype) is not CheckpointDtype or type(fortran) is not bool or type(data) is not bytes or version != 1:
            raise pickle.UnpicklingError('array that is not stored as numpy stores it')
        if not isinstance(shape, tuple) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
            raise pickle.UnpicklingError(f'array of shape {shape!r}')
        if len(data) != math.prod(shape) * dtype.dtype.itemsize:
            raise pickle.UnpicklingError(f'array of shape {shape!r} with {len(data)} bytes')
        if dtype.dtype.kind == 'b' and data.strip(b'\0\1'):
            raise pickle.UnpicklingError('array of booleans other than 0 and 1')
        super().__setstate__((1, shape, dtype.dtype, fortran, data))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return np.array(self, subok=False).__reduce__()


class CheckpointHistory(HistoryBuffer):
    """Stand in for ``HistoryBuffer``; it becomes one when its state is known."""

    def __new__(cls) -> 'CheckpointHistory':
        return super().__new__(cls)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Not `statistics_methods`, which would change the class for all histories.
        filled = _history(state['_log_history'], state['_count_history'], state['max_length'])
        self.__dict__.update(filled.__dict__)
        self.__class__ = HistoryBuffer


def _reconstruct(cls: type, shape: Any, code: Any) -> CheckpointArray:
    """Stand in for numpy's function of this name: an empty array, which gets its state next."""
    if cls is not CheckpointArray or shape != (0,) or code not in (b'b', 'b'):
        raise pickle.UnpicklingError('array that is not stored as numpy stores it')
    return np.ndarray.__new__(CheckpointArray, (0,), np.int8)


def _scalar(dtype: CheckpointDtype, data: bytes = b'') -> bool | int | float:
    """Stand in for numpy's function of this name: Python's number of the same value."""
    if type(dtype) is not CheckpointDtype or type(data) is not bytes or len(data) != dtype.dtype.itemsize:
        raise pickle.UnpicklingError('number that is not stored as numpy stores it')
    if dtype.dtype.kind == 'b' and data not in (b'\0', b'\1'):
        raise pickle.UnpicklingError('boolean other than 0 and 1')
    number: bool | int | float = np.frombuffer(data, dtype.dtype)[0].item()
    return number


def _statistic(owner: type, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr`` in checkpoints, which log histories use to name their statistics; refuse all else."""
    if owner is CheckpointHistory and name in ('min', 'max', 'mean', 'current'):
        statistic: Callable[..., Any] = getattr(HistoryBuffer, name)
        return statistic
    raise pickle.UnpicklingError(f'Trying to call reduce for unsupported GLOBAL getattr({owner!r}, {name!r})')


def _history(log: Any, count: Any, max_length: Any) -> HistoryBuffer:
    log, count = (np.array(values, subok=False) for values in (log, count))
    if log.ndim != 1 or log.shape != count.shape or {log.dtype.kind, count.dtype.kind} - set('iuf'):
        raise pickle.UnpicklingError('log history that is not two lists of numbers of the same length')
    if type(max_length) is not int or not 1 <= max_length <= 10**9:
        raise pickle.UnpicklingError(f'log history with max_length {max_length!r}')
    history = HistoryBuffer(max_length=max_length)
    history._log_history, history._count_history = (
        values.astype(values.dtype.newbyteorder('=')) for values in (log, count)
    )
    return history


def allow_stand_ins() -> None:
    """Let ``torch.load(weights_only=True)`` read log histories and numbers of numpy, by the classes of this module."""
    # Files written with numpy 1 name its private module differently.
    allowed: list[Any] = [
        (CheckpointHistory, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (CheckpointArray, 'numpy.ndarray'),
        (CheckpointDtype, 'numpy.dtype'),
        (_statistic, 'builtins.getattr'),
    ]
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed += [(_reconstruct, f'{module}._reconstruct'), (_scalar, f'{module}.scalar')]
    torch.serialization.add_safe_globals(allowed)


def plain(value: Any) -> Any:
    """Return a value without objects of numpy and without log histories: tensors, Python's numbers, and containers.

    ``HistoryBuffer`` becomes a dict of two tensors and a number, arrays become lists, paths text. Dicts become
    ``dict``, but for ``OrderedDict`` and ``Counter``.
    """
    if isinstance(value, HistoryBuffer):
        log, count = (torch.from_numpy(np.array(array)) for array in value.data)
        return dict(log_history=log, count_history=count, max_length=int(value.max_length))
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        kind = type(value) if type(value) in (OrderedDict, Counter) else dict
        return kind({plain(key): plain(item) for key, item in value.items()})
    if isinstance(value, list):
        return [plain(item) for item in value]
    if type(value) is tuple:
        return tuple(plain(item) for item in value)
    return str(value) if isinstance(value, PurePath) else value


def restore_histories(scalars: dict[str, Any]) -> None:
    """Turn what :func:`plain` made of log histories into ``HistoryBuffer`` objects again, in place."""
    for key, value in scalars.items():
        if isinstance(value, dict) and value.keys() == _HISTORY:
            log, count = (values.cpu().numpy() for values in (value['log_history'], value['count_history']))
            scalars[key] = _history(log, count, value['max_length'])
