"""The backbones: an arch table, stages and a forward each."""

from .base import PyramidBackbone
from .dat import DAT
from .dpt import DPT
from .pvt import PVT
from .pvt_v2 import PVTv2

__all__ = ['DAT', 'DPT', 'PVT', 'PVTv2', 'PyramidBackbone']
