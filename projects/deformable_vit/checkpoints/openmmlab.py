"""Names of mmdet's ``PyramidVisionTransformer`` and ``PyramidVisionTransformerV2`` to those of this project."""

import re
from collections.abc import Container, Mapping

import torch
from torch import Tensor

# A stage is a list: patch embedding, blocks (in PVT after a position embedding), norm (PVT v2). An MLP is a sequence of
# 1 x 1 convolutions and, in PVT v2, a depthwise one.
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r'^layers\.(\d)\.0\.projection\.', r'stages.\1.patch_embed.proj.'),
        (r'^layers\.(\d)\.0\.', r'stages.\1.patch_embed.'),
        (r'^layers\.(\d)\.1\.0\.pos_embed$', r'stages.\1.pos_embed'),
        (r'^layers\.(\d)\.1\.', r'stages.\1.blocks.'),
        (r'^layers\.(\d)\.2\.', r'stages.\1.norm.'),
        (r'\.attn\.attn\.out_proj\.', '.attn.proj.'),
        (r'\.ffn\.layers\.0\.', '.mlp.fc1.'),
        (r'\.ffn\.layers\.1\.', '.mlp.dwconv.'),
        (r'\.ffn\.layers\.[34]\.', '.mlp.fc2.'),
    )
)
_BLOCK = re.compile(r'\.blocks\.(\d+)')
_LINEAR = re.compile(r'\.mlp\.fc[12]\.weight$')
_QKV = '.attn.attn.in_proj_'


def is_openmmlab(names: Container[str]) -> bool:
    """Return whether these are the names of mmdet's PVT or PVT v2 backbone."""
    return 'layers.0.0.projection.weight' in names


def translate(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate the state dict of a backbone; names that are the same here stay."""
    first_block = int('layers.0.1.0.pos_embed' in state_dict)
    translated = {}
    for name, value in state_dict.items():
        renamed = name
        for pattern, replacement in _RULES:
            renamed = pattern.sub(replacement, renamed)
        renamed = _BLOCK.sub(lambda found: f'.blocks.{int(found[1]) - first_block}', renamed)
        if _QKV in renamed:
            dim = len(value) // 3
            translated[renamed.replace(_QKV, '.attn.q.')] = value[:dim]
            translated[renamed.replace(_QKV, '.attn.kv.')] = value[dim:]
            continue
        if renamed == 'stages.3.pos_embed':  # the entry of the class token, which a feature backbone does not use
            value = torch.cat([value.new_zeros(1, 1, value.shape[-1]), value], dim=1)
        translated[renamed] = value.flatten(1) if _LINEAR.search(renamed) else value
    return translated
