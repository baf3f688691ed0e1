"""The backbones: each has an arch table, its own layers and its stages."""

from .base import PyramidBackbone
from .dat import DAT
from .dpt import DPT
from .pvt import PVT
from .pvt_v2 import PVTv2

__all__ = ['DAT', 'DPT', 'PVT', 'PVTv2', 'PyramidBackbone']
