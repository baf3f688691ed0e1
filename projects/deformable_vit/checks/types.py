"""Types that a config names, as strings or, in pure-Python configs, as classes."""

import contextlib
import importlib
from functools import cache
from typing import Any

from mmengine.registry import Registry


def find_type(kind: Any, scope: str) -> Any:
    """Return the class or function that a type means in a scope; None for an unknown name."""
    return _named(kind, scope) if isinstance(kind, str) else kind


@cache
def _named(kind: str, scope: str) -> Any:
    with contextlib.suppress(ImportError):
        registries = vars(importlib.import_module(f'{scope}.registry')).values()
        return next(filter(None, (r.get(kind) for r in registries if isinstance(r, Registry))), None)
    return None


def bases(kind: Any, scope: str) -> set[str]:
    """Return the names of a type's class and of its base classes."""
    return {cls.__name__ for cls in getattr(find_type(kind, scope), '__mro__', ())}
