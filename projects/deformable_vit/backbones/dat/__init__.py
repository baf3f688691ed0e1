"""Deformable Attention Transformer (DAT, DAT++)."""

from .dat import DAT, DATBlock, DeformableAttention
from .local_attention import NeighborhoodAttention, WindowAttention

__all__ = ['DAT', 'DATBlock', 'DeformableAttention', 'NeighborhoodAttention', 'WindowAttention']
