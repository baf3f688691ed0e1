"""Which way the operators go: one setting, for all of them.

``auto``, the default, is the fast way for the device and the size. ``reference`` is the slow, obvious form of each
operator, in :mod:`.reference`; perceptrons then keep all that they need for backward. ``blocks`` and ``products`` are
the two fast ways of deformable attention with a bias (see :mod:`.deformable_attention`); everything else goes its fast
way.

Set it for a program with the environment variable ``DEFORMABLE_VIT_PATH``, for a part of one with :func:`use_path`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from . import reference

PATHS = ('auto', 'reference', 'blocks', 'products')
VARIABLE = 'DEFORMABLE_VIT_PATH'

_P, _T = ParamSpec('_P'), TypeVar('_T')


def _check(path: str, what: str) -> str:
    if path not in PATHS:
        raise ValueError(f'{what} must be one of {", ".join(PATHS)}, got {path!r}')
    return path


# Checked where it is used, so that a program can say what is wrong in its own way.
_path = os.environ.get(VARIABLE) or 'auto'


def current_path() -> str:
    """The way that operators go now, one of ``PATHS``.

    Raises:
        ValueError: The environment variable names no such way.
    """
    return _check(_path, VARIABLE)


@contextmanager
def use_path(path: str) -> Iterator[None]:
    """Send the operators another way, of ``PATHS``, in all threads until the context is left.

    What backward needs is chosen in forward; it may come after the context.

    Raises:
        ValueError: There is no such way.
    """
    global _path  # read at every call of an operator, also in torch.compile's guards
    before, _path = _path, _check(path, 'path')
    try:
        yield
    finally:
        _path = before


def with_reference(operator: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let an operator give way to its namesake in :mod:`.reference` when the path says so."""
    slow = getattr(reference, operator.__name__)

    @wraps(operator)
    def chosen(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return (slow if current_path() == 'reference' else operator)(*args, **kwargs)

    return chosen
