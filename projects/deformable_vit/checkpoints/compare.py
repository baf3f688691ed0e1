"""Comparison of the names and shapes of a state dict with those of a model, and a check of its values."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, shown

_KINDS = ('missing', 'unexpected', 'mismatched')
_SHOWN_NAMES, _SHOWN_MODULES = 3, 8


@dataclass(frozen=True)
class Difference:
    """How the names and shapes of a state dict differ from those of a model."""

    matched: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = []
        for kind in _KINDS:
            names = getattr(self, kind)
            if names:
                rest = f' and {len(names) - _SHOWN_NAMES} more' if len(names) > _SHOWN_NAMES else ''
                parts.append(f'{len(names)} {kind} ({", ".join(map(shown, names[:_SHOWN_NAMES]))}{rest})')
        total = self.matched + len(self.missing) + len(self.mismatched)
        return f'{self.matched} of {total} parameters match, ' + (', '.join(parts) or 'none is unexpected')

    def report(self) -> str:
        """Return the summary and, for each kind that it shortens, a line with the modules of its names, for logs."""
        lines = [str(self)]
        for kind in _KINDS:
            names = getattr(self, kind)
            if len(names) > _SHOWN_NAMES:
                counts = Counter('.'.join(name.split(':')[0].split('.')[:2]) for name in names)
                modules = [f'{shown(module)} ({count})' for module, count in counts.most_common(_SHOWN_MODULES)]
                rest = f' and {len(counts) - _SHOWN_MODULES} more' if len(counts) > _SHOWN_MODULES else ''
                lines.append(f'  {kind}: {", ".join(modules)}{rest}')
        return '\n'.join(lines)


def compare(state_dict: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> Difference:
    """Compare the names and shapes of ``state_dict`` with those of a model's ``state_dict()``."""
    common = [key for key in model if key in state_dict]
    fitting = {key for key in common if state_dict[key].shape == model[key].shape}
    return Difference(
        matched=len(fitting),
        missing=tuple(key for key in model if key not in state_dict),
        unexpected=tuple(key for key in state_dict if key not in model),
        mismatched=tuple(
            f'{key}: {tuple(state_dict[key].shape)} in the checkpoint, {tuple(model[key].shape)} in the model'
            for key in common
            if key not in fitting
        ),
    )


def check_dtypes(state_dict: Mapping[str, Tensor], model: Mapping[str, Tensor], checkpoint: str) -> None:
    """Check that a state dict is floating where the model is: torch would convert integers without a word.

    Raises:
        CheckpointError: It is not; the message names the file ``checkpoint``.
    """
    for name, own in model.items():
        if name in state_dict and state_dict[name].is_floating_point() != own.is_floating_point():
            raise CheckpointError(
                f'checkpoint {shown(checkpoint)} does not fit: {shown(name)} is {state_dict[name].dtype} in it and '
                f'{own.dtype} in the model'
            )


def check_finite(content: dict[str, Any]) -> None:
    """Check that the tensors in nested dicts and lists are finite.

    Raises:
        CheckpointError: One is not; the message names it, and follows the name of a checkpoint.
    """
    todo: list[tuple[str, Any]] = [*content.items()]
    seen = set()  # a container may hold itself
    while todo:
        name, value = todo.pop()
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            # Attention masks hold -inf where nothing is attended to.
            wrong = ~value.isfinite() & ((value != -torch.inf) | (not name.endswith('mask')))
            if wrong.any():
                raise CheckpointError(
                    f'is refused: {shown(name)} has {int(wrong.sum())} of {value.numel()} values that are NaN or '
                    'infinite, because the training diverged or the file is damaged'
                )
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            todo += [(f'{name}.{key}', item) for key, item in items]
