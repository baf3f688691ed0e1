"""Pure functions on state dicts: from the authors' names and sizes to this project's."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from ..ops import resize_position_embedding
from . import dat, pvt
from .files import CheckpointError

StateDict = dict[str, Tensor]

# What an authors' classifier holds and a feature backbone may have no use for.
_CLASSIFIER_ONLY = ('head.', 'stages.3.norm.', 'stages.3.cls_token')
# Buffers of theirs that follow from the model and the size of the input.
_DERIVED = re.compile(
    r'\.(relative_position_index|attn_mask|q_grid|reference|anchor|value_spatial_shapes|value_level_start_index)$'
)


def is_authors(state_dict: StateDict) -> bool:
    """Whether the names are those of one of the families' authors."""
    return pvt.is_pvt(state_dict) or dat.is_dat(state_dict)


def to_ours(state_dict: StateDict) -> StateDict:
    """An authors' backbone or classifier in this project's names; a dict in other names comes back as it is."""
    if not is_authors(state_dict):
        return state_dict
    kept = {name: value for name, value in state_dict.items() if not _DERIVED.search(name)}
    if dat.is_dat(kept):
        return dat.translate(kept)
    return {pvt.rename(name): value for name, value in kept.items()}


def adapt_to_backbone(
    state_dict: StateDict, shapes: Mapping[str, tuple[int, ...]], num_extra: Mapping[str, int]
) -> StateDict:
    """A state dict in the names of a backbone, its position embeddings and tables in the backbone's sizes.

    Args:
        state_dict: In the authors' names, classifier or backbone, or in ours.
        shapes: The shape of each parameter and buffer of the backbone, by name.
        num_extra: For each position embedding of the backbone, its leading entries that are not of the grid.

    Returns:
        A new dict. What only a classifier has is left out; everything else that does not fit stays, to be reported.
    """
    renamed = to_ours(state_dict)
    if renamed is not state_dict:
        # The last norm of a detector's backbone has the same name here as a classifier's, and must not go unnoticed.
        surplus = (*_CLASSIFIER_ONLY, 'norms.3.') if 'cls_norm.norm.weight' in state_dict else _CLASSIFIER_ONLY
        renamed = {k: v for k, v in renamed.items() if k in shapes or not k.startswith(surplus)}
    resized = dict(renamed)
    for name, extra in num_extra.items():
        if name in resized and tuple(resized[name].shape) != shapes[name]:
            resized[name] = _resized_embedding(name, resized[name], shapes[name], extra)
    for name, value in resized.items():
        if name.endswith(_TABLES) and name in shapes and tuple(value.shape) != shapes[name]:
            resized[name] = _resized_table(name, value, shapes[name])
    return resized


# Tables of relative position biases: (heads, T, T), or (T * T, heads) for windows.
_TABLES = ('.rpe_table', '.rpb', '.relative_position_bias_table')


def _resized_table(name: str, table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bicubic, as the DAT authors do."""
    flat = table.ndim == 2
    if flat:
        edges = [math.isqrt(n) for n in (table.shape[0], shape[0])]
        if table.shape[1] != shape[1] or [e**2 for e in edges] != [table.shape[0], shape[0]]:
            return table  # of another model; the caller reports it
        table, target = table.T.unflatten(1, (edges[0], edges[0])), (edges[1], edges[1])
    elif table.ndim == 3 and table.shape[0] == shape[0]:
        target = shape[1:]
    else:
        return table
    height, width = table.shape[1:]
    print_log(f'{name}: relative position bias resized from {height} x {width} to {target[0]} x {target[1]}', 'current')
    resized = F.interpolate(table[None], size=target, mode='bicubic', align_corners=False)[0]
    return resized.flatten(1).T if flat else resized


def _resized_embedding(name: str, embedding: Tensor, shape: tuple[int, ...], extra: int) -> Tensor:
    source, target = (math.isqrt(n - extra) for n in (embedding.shape[1], shape[1]))
    if embedding.shape[2] != shape[2] or source**2 != embedding.shape[1] - extra or target**2 != shape[1] - extra:
        return embedding  # of another model; the caller reports it
    print_log(f'{name}: position embedding resized from {source} x {source} to {target} x {target}', 'current')
    return resize_position_embedding(embedding, (source, source), (target, target), extra)


def to_classifier(state_dict: StateDict) -> StateDict:
    """An authors' ImageNet classifier as the state dict of this project's ``ImageClassifier`` config.

    Raises:
        CheckpointError: The names are not those of an authors' classifier.
    """
    ours = to_ours(state_dict) if is_authors(state_dict) else {}
    if 'head.weight' not in ours:
        first = ', '.join(list(state_dict)[:4])
        raise CheckpointError(
            f'not a classifier of the PVT, DPT or DAT authors, whose names are known here; it begins with {first}'
        )
    return {
        k.replace('head.', 'head.fc.') if k.startswith('head.') else f'backbone.{k}': v.clone() for k, v in ours.items()
    }


_KINDS = ('missing', 'unexpected', 'mismatched')


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
        for what in _KINDS:
            names = getattr(self, what)
            if names:
                rest = f' and {len(names) - 3} more' if len(names) > 3 else ''
                parts.append(f'{len(names)} {what} ({", ".join(names[:3])}{rest})')
        return f'{self.matched} parameters match, ' + (', '.join(parts) or 'all that there are')

    def report(self) -> str:
        """In words, and below them every name on a line of its own: for logs."""
        return '\n'.join([str(self), *(f'  {what}: {name}' for what in _KINDS for name in getattr(self, what))])


def compare(state_dict: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> Difference:
    """Names and shapes of ``state_dict`` against those of a model's ``state_dict()``."""
    both = [k for k in model if k in state_dict]
    fits = {k for k in both if state_dict[k].shape == model[k].shape}
    return Difference(
        matched=len(fits),
        missing=tuple(k for k in model if k not in state_dict),
        unexpected=tuple(k for k in state_dict if k not in model),
        mismatched=tuple(
            f'{k}: {tuple(state_dict[k].shape)} in the file, {tuple(model[k].shape)} in the model'
            for k in both
            if k not in fits
        ),
    )
