"""Deformable pyramid backbones for MMDetection, MMSegmentation and MMPreTrain.

Importing this package registers ``DAT``, ``DPT``, ``PVT`` and ``PVTv2`` in ``mmengine.registry.MODELS``, where mmdet,
mmseg and mmpretrain find them, and makes mmengine load checkpoints safely (:func:`.checkpoints.enable_safe_loading`)
and by name (:func:`.checkpoints.enable_official_weights`).
It changes nothing else in the process, and needs torch and mmengine only.
"""

from .backbones import DAT, DPT, PVT, PVTv2
from .checkpoints import enable_official_weights, enable_safe_loading

__version__ = '0.1.0'
__all__ = ['DAT', 'DPT', 'PVT', 'PVTv2', '__version__']

enable_safe_loading()
enable_official_weights()
