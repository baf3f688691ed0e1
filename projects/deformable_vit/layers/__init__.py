"""``nn.Module`` layers that several backbones share; each projects and calls an op."""

from .attention import SpatialReductionAttention
from .block import DropPath, LayerScale, TransformerBlock
from .calls import call_in_float, is_plain
from .mlp import MLP, ConvMLP
from .patch_embed import OverlapPatchEmbed, PatchEmbed

__all__ = [
    'MLP',
    'ConvMLP',
    'DropPath',
    'LayerScale',
    'OverlapPatchEmbed',
    'PatchEmbed',
    'SpatialReductionAttention',
    'TransformerBlock',
    'call_in_float',
    'is_plain',
]
