"""``nn.Module`` layers that more than one backbone uses; each only projects and calls an op."""

from .attention import LinearSpatialReductionAttention, SpatialReductionAttention
from .block import TransformerBlock
from .mlp import MLP, ConvMLP, LinearConvMLP
from .patch_embed import OverlapPatchEmbed, PatchEmbed

__all__ = [
    'MLP',
    'ConvMLP',
    'LinearConvMLP',
    'LinearSpatialReductionAttention',
    'OverlapPatchEmbed',
    'PatchEmbed',
    'SpatialReductionAttention',
    'TransformerBlock',
]
