"""Names of official DAT and DAT++ checkpoints, classifiers and backbones, to those of this project."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

# The official implementation keeps the layers of a stage in one list per type; here each block holds its own. Its norms
# are wrapped (``.norm.``) and its layers are in sequences (numbers).
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r'^patch_proj\.0\.', 'stages.0.patch_embed.proj.'),
        (r'^patch_proj\.1\.norm\.', 'stages.0.patch_embed.norm.'),
        (r'^norms\.(\d)\.norm\.', r'norms.\1.'),
        (r'^cls_norm\.norm\.', 'norms.3.'),
        (r'^cls_head\.', 'head.'),
        (r'^(stages\.\d)\.attns\.(\d+)\.', r'\1.blocks.\2.attn.'),
        (r'^(stages\.\d)\.mlps\.(\d+)\.', r'\1.blocks.\2.mlp.'),
        (r'^(stages\.\d)\.local_perception_units\.(\d+)\.', r'\1.blocks.\2.lpu.'),
        (r'\.attn\.proj_(qkv|q|k|v)\.', r'.attn.\1.'),
        (r'\.attn\.proj_out\.', '.attn.proj.'),
        (r'\.attn\.conv_offset\.0\.', '.attn.offset.dwconv.'),
        (r'\.attn\.conv_offset\.1\.norm\.', '.attn.offset.norm.'),
        (r'\.attn\.conv_offset\.3\.', '.attn.offset.proj.'),
        (r'\.mlp\.(?:chunk\.)?linear([12])\.(?:0\.)?', r'.mlp.fc\1.'),
        (r'\.mlp\.dwc\.', '.mlp.dwconv.'),
    )
)
# The convolutional stem of DAT++ has other layers at the numbers of DAT's patch embedding.
_STEM = {'0': 'first.proj.', '1': 'first.norm.', '3': 'second.proj.', '4': 'second.norm.'}
# 1 x 1 convolutions of the official implementation that are linear layers here.
_LINEAR = re.compile(r'\.(attn\.(q|k|v|proj|offset\.proj)|mlp\.fc[12])\.weight$')


def is_dat(names: Iterable[str]) -> bool:
    """Return whether these are the names of an official DAT checkpoint."""
    return any(name.startswith('patch_proj.') for name in names)


def translate(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a state dict; names that are the same here stay."""
    has_conv_stem = any(name.startswith('patch_proj.3.') for name in state_dict)
    translated = {}
    for name, value in state_dict.items():
        renamed = _rename(name, has_conv_stem)
        if _LINEAR.search(renamed) and value.ndim == 4 and value.shape[2:] == (1, 1):
            value = value.flatten(1)
        translated[renamed] = value
    return translated


def _rename(name: str, has_conv_stem: bool) -> str:
    if has_conv_stem and (found := re.match(r'^patch_proj\.([0134])\.(?:norm\.)?', name)):
        return 'stages.0.patch_embed.' + _STEM[found[1]] + name[found.end() :]
    if found := re.match(r'^down_projs\.(\d)\.(?:0|(1\.norm))\.', name):
        part = 'norm' if found[2] else 'proj'
        return f'stages.{int(found[1]) + 1}.patch_embed.{part}.{name[found.end() :]}'
    if found := re.match(r'^(stages\.\d)\.(layer_norms|layer_scales)\.(\d+)\.(?:norm\.)?', name):
        block, branch = divmod(int(found[3]), 2)  # two per block, of attention and of the MLP
        kind = {'layer_norms': 'norm', 'layer_scales': 'scale'}[found[2]]
        return f'{found[1]}.blocks.{block}.{kind}{branch + 1}.{name[found.end() :]}'
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name
