"""Translation from this project's names to the official ones, independent of the package's own rules."""

import re
from collections.abc import Callable

from torch import Tensor


def _increment(form: str) -> Callable[[re.Match], str]:
    """Return a replacement that puts the first group, a stage index, plus one into ``form``."""
    return lambda found: form.format(int(found[1]) + 1)


_PVT = (
    (r'stages\.(\d)\.patch_embed\.', _increment('patch_embed{}.')),
    (r'stages\.(\d)\.blocks\.', _increment('block{}.')),
    (r'stages\.(\d)\.norm\.', _increment('norm{}.')),
    (r'stages\.(\d)\.pos_embed$', _increment('pos_embed{}')),
    (r'\.mlp\.dwconv\.', '.mlp.dwconv.dwconv.'),
    (r'\.wh_bias$', '.box_coder.wh_bias'),
)
_DAT = (
    (r'stages\.0\.patch_embed\.(first\.)?proj\.', 'patch_proj.0.'),
    (r'stages\.0\.patch_embed\.(first\.)?norm\.', 'patch_proj.1.norm.'),
    (r'stages\.0\.patch_embed\.second\.proj\.', 'patch_proj.3.'),
    (r'stages\.0\.patch_embed\.second\.norm\.', 'patch_proj.4.norm.'),
    (r'stages\.(\d)\.patch_embed\.proj\.', lambda found: f'down_projs.{int(found[1]) - 1}.0.'),
    (r'stages\.(\d)\.patch_embed\.norm\.', lambda found: f'down_projs.{int(found[1]) - 1}.1.norm.'),
    (r'\.blocks\.(\d+)\.norm1\.', lambda found: f'.layer_norms.{2 * int(found[1])}.norm.'),
    (r'\.blocks\.(\d+)\.norm2\.', lambda found: f'.layer_norms.{2 * int(found[1]) + 1}.norm.'),
    (r'\.blocks\.(\d+)\.lpu\.', r'.local_perception_units.\1.'),
    (r'\.blocks\.(\d+)\.attn\.(q|k|v)\.', r'.attns.\1.proj_\2.'),
    (r'\.blocks\.(\d+)\.attn\.offset\.dwconv\.', r'.attns.\1.conv_offset.0.'),
    (r'\.blocks\.(\d+)\.attn\.offset\.norm\.', r'.attns.\1.conv_offset.1.norm.'),
    (r'\.blocks\.(\d+)\.attn\.offset\.proj\.', r'.attns.\1.conv_offset.3.'),
    (r'\.blocks\.(\d+)\.attn\.', r'.attns.\1.'),
    (r'(^|\.)norms\.(\d)\.', r'\1norms.\2.norm.'),
)
_DAT_MLP = ((r'\.blocks\.(\d+)\.mlp\.fc(\d)\.', r'.mlps.\1.chunk.linear\2.'),)
_DAT_PP_MLP = (
    (r'\.blocks\.(\d+)\.mlp\.fc(\d)\.', r'.mlps.\1.linear\2.0.'),
    (r'\.blocks\.(\d+)\.mlp\.dwconv\.', r'.mlps.\1.dwc.'),
)
_RULES = dict(pvt=_PVT, pvtv2=_PVT, dpt=_PVT, dat=_DAT + _DAT_MLP, datpp=_DAT + _DAT_PP_MLP)


def official_names(state_dict: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """Return the state dict of a whole model as the official implementation of its backbone would have saved it.

    Args:
        state_dict: Of a detector, segmentor or classifier; names of the backbone start with ``backbone.``.
        family: ``pvt``, ``pvtv2``, ``dpt``, ``dat`` or ``datpp``.
    """
    official = {}
    for name, value in state_dict.items():
        renamed = name
        if name.startswith('backbone.'):
            for pattern, form in _RULES[family]:
                renamed = re.sub(pattern, form, renamed)
            layer = name.split('.attn.')[0] + '.attn.'
            found = re.search(r'\.attn\.(qkv|proj)\.', name)
            # Deformable and window attention name them proj_qkv and proj_out, neighborhood attention does not.
            if found and f'{layer}rpb' not in state_dict and family in ('dat', 'datpp'):
                renamed = renamed.replace('.qkv.', '.proj_qkv.').replace('.proj.', '.proj_out.')
            is_deformable = '.attn.' in name and f'{layer}offset.proj.weight' in state_dict
            if value.ndim == 2 and ((is_deformable and 'weight' in name) or re.search(r'\.linear\d\.0\.', renamed)):
                value = value[:, :, None, None]
        official[renamed] = value
    return official
