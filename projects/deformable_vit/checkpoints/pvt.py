"""Names in the PVT and DPT authors' files -> names in this project; all their models and backbones share them."""

import re
from collections.abc import Iterable

# The authors count stages from 1 and keep what belongs to a stage side by side; here each stage holds its own.
_RULES = (
    (re.compile(r'^patch_embed(\d)\.'), r'stages.{}.patch_embed.'),
    (re.compile(r'^pos_embed(\d)$'), r'stages.{}.pos_embed'),
    (re.compile(r'^block(\d)\.'), r'stages.{}.blocks.'),
    (re.compile(r'^norm(\d)\.'), r'stages.{}.norm.'),
)


def is_pvt(names: Iterable[str]) -> bool:
    """Whether these are names of a PVT or DPT authors' file."""
    return any(name.startswith('patch_embed1.') for name in names)


def rename(name: str) -> str:
    """One name; those that have no other form here (``head.weight``) come back as they are."""
    for pattern, form in _RULES:
        if found := pattern.match(name):
            name = form.format(int(found[1]) - 1) + name[found.end() :]
            break
    else:
        name = re.sub(r'^(norm\.|cls_token$)', r'stages.3.\1', name)
    return name.replace('.dwconv.dwconv.', '.dwconv.').replace('.box_coder.wh_bias', '.wh_bias')
