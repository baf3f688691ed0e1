"""``nn.Module`` layers that more than one backbone uses; each only projects and calls an op."""

from .attention import LinearSpatialReductionAttention, SpatialReductionAttention
from .block import LocalPerceptionBlock, TransformerBlock
from .deformable_attention import DeformableAttention, OffsetNet
from .mlp import MLP, ConvMLP, LinearConvMLP, ResidualConvMLP
from .patch_embed import ConvStem, DeformablePatchEmbed, OverlapPatchEmbed, PatchEmbed
from .window_attention import MapAttention, NeighborhoodAttention, WindowAttention

__all__ = [
    'MLP',
    'ConvMLP',
    'ConvStem',
    'DeformableAttention',
    'DeformablePatchEmbed',
    'LinearConvMLP',
    'LinearSpatialReductionAttention',
    'LocalPerceptionBlock',
    'MapAttention',
    'NeighborhoodAttention',
    'OffsetNet',
    'OverlapPatchEmbed',
    'PatchEmbed',
    'ResidualConvMLP',
    'SpatialReductionAttention',
    'TransformerBlock',
    'WindowAttention',
]
