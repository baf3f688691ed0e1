"""Types that a config names, as strings or, in pure-Python configs, as classes."""

import contextlib
import importlib
from functools import cache
from typing import Any

from mmengine.registry import Registry


def find_type(kind: Any, scope: str) -> Any:
    """Return the class or function that a type means in a scope; None for an unknown name."""
    return _named(kind, scope) if isinstance(kind, str) else kind


def registered_name(kind: type, scope: str) -> str | None:
    """Return a name that means a class in a scope, its own if that is one; None if there is none."""
    names = [
        name
        for r in (*_registries(scope), *_registries('mmengine'))
        for name, cls in r.module_dict.items()
        if cls is kind
    ]
    names.sort(key=lambda name: name != kind.__name__)
    return next((name for name in names if find_type(name, scope) is kind), None)


@cache
def _named(kind: str, scope: str) -> Any:
    return next(filter(None, (registry.get(kind) for registry in _registries(scope))), None)


def _registries(scope: str) -> list[Registry]:
    with contextlib.suppress(ImportError):
        members = vars(importlib.import_module(f'{scope}.registry')).values()
        return [member for member in members if isinstance(member, Registry)]
    return []


def bases(kind: Any, scope: str) -> set[str]:
    """Return the names of a type's class and of its base classes."""
    return {cls.__name__ for cls in getattr(find_type(kind, scope), '__mro__', ())}
