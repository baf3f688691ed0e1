"""Names in the DAT authors' files -> names in this project: DAT and DAT++, classifiers and backbones of hosts."""

import re
from collections.abc import Iterable

from torch import Tensor

# The authors keep the layers of a stage's blocks in one list per kind; here each block holds its own. Their classes
# wrap norms (``.norm.``) and put layers into sequences (numbers), which leaves traces in the names.
_RULES = tuple(
    (re.compile(pattern), form)
    for pattern, form in (
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
# The convolutional stem of DAT++ has other layers at the numbers of DAT's.
_STEM = {'0': 'first.proj.', '1': 'first.norm.', '3': 'second.proj.', '4': 'second.norm.'}
# 1 x 1 convolutions of theirs that are linear layers here.
_LINEAR = re.compile(r'\.(attn\.(q|k|v|proj|offset\.proj)|mlp\.fc[12])\.weight$')


def is_dat(names: Iterable[str]) -> bool:
    """Whether these are names of a DAT authors' file."""
    return any(name.startswith('patch_proj.') for name in names)


def translate(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A whole state dict; names that have no other form here come back as they are."""
    has_conv_stem = any(name.startswith('patch_proj.3.') for name in state_dict)
    translated = {}
    for name, value in state_dict.items():
        ours = _rename(name, has_conv_stem)
        if _LINEAR.search(ours) and value.ndim == 4 and value.shape[2:] == (1, 1):
            value = value.flatten(1)
        translated[ours] = value
    return translated


def _rename(name: str, has_conv_stem: bool) -> str:
    if has_conv_stem and (found := re.match(r'^patch_proj\.([0134])\.(?:norm\.)?', name)):
        return 'stages.0.patch_embed.' + _STEM[found[1]] + name[found.end() :]
    if found := re.match(r'^down_projs\.(\d)\.(?:0|(1\.norm))\.', name):
        part = 'norm' if found[2] else 'proj'
        return f'stages.{int(found[1]) + 1}.patch_embed.{part}.{name[found.end() :]}'
    if found := re.match(r'^(stages\.\d)\.(layer_norms|layer_scales)\.(\d+)\.(?:norm\.)?', name):
        block, branch = divmod(int(found[3]), 2)  # two of each a block: before the attention and before the perceptron
        kind = {'layer_norms': 'norm', 'layer_scales': 'scale'}[found[2]]
        return f'{found[1]}.blocks.{block}.{kind}{branch + 1}.{name[found.end() :]}'
    for pattern, form in _RULES:
        name = pattern.sub(form, name)
    return name
