"""Parameter names of the official implementations, and of mmdet's PVT, to those of this project."""

import re
from collections.abc import Mapping

from torch import Tensor

from . import dat, openmmlab, pvt

# Buffers of the official implementations that follow from the model and the input size.
_DERIVED = re.compile(
    r'\.(relative_position_index|attn_mask|q_grid|reference|anchor|value_spatial_shapes|value_level_start_index)$'
)


def is_official(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the names of an official implementation, or of mmdet's PVT."""
    return pvt.is_pvt(state_dict) or dat.is_dat(state_dict) or openmmlab.is_openmmlab(state_dict)


def translate_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an official backbone or classifier in this project's names; others stay as they are."""
    if not is_official(state_dict):
        return dict(state_dict)
    kept = {name: value for name, value in state_dict.items() if not _DERIVED.search(name)}
    if dat.is_dat(kept):
        return dat.translate(kept)
    if openmmlab.is_openmmlab(kept):
        return openmmlab.translate(kept)
    return {pvt.rename(name): value for name, value in kept.items()}
