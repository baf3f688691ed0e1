"""Names of official PVT, PVT v2 and DPT checkpoints, classifiers and backbones, to those of this project."""

import re
from collections.abc import Iterable

# The official implementations count stages from 1 and keep the parts of a stage side by side; here a stage holds them.
_RULES = (
    (re.compile(r'^patch_embed(\d)\.'), r'stages.{}.patch_embed.'),
    (re.compile(r'^pos_embed(\d)$'), r'stages.{}.pos_embed'),
    (re.compile(r'^block(\d)\.'), r'stages.{}.blocks.'),
    (re.compile(r'^norm(\d)\.'), r'stages.{}.norm.'),
)


def is_pvt(names: Iterable[str]) -> bool:
    """Return whether these are the names of an official PVT, PVT v2 or DPT checkpoint."""
    return any(name.startswith('patch_embed1.') for name in names)


def rename(name: str) -> str:
    """Translate one name; those that are the same here (``head.weight``) stay."""
    for pattern, form in _RULES:
        if found := pattern.match(name):
            name = form.format(int(found[1]) - 1) + name[found.end() :]
            break
    else:
        name = re.sub(r'^(norm\.|cls_token$)', r'stages.3.\1', name)
    return name.replace('.dwconv.dwconv.', '.dwconv.').replace('.box_coder.wh_bias', '.wh_bias')
