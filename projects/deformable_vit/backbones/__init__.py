"""The backbones: an arch table, stages and a forward each."""

from .base import PyramidBackbone
from .pvt import PVT
from .pvt_v2 import PVTv2

__all__ = ['PVT', 'PVTv2', 'PyramidBackbone']
