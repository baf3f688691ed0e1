"""Deformable pyramid backbones for MMDetection, MMSegmentation and MMPreTrain.

Importing this package registers ``DAT``, ``DPT``, ``PVT`` and ``PVTv2`` in ``mmengine.registry.MODELS``, where mmdet,
mmseg and mmpretrain find them, makes mmengine load checkpoints safely
(:func:`.checkpoints.enable_safe_loading`), lets it find mmseg's configs when
the maintained fork is installed (:func:`._compat.find_configs_by_import_name`), and the configs of this package
(:func:`._config_lookup.find_own_configs`). It changes nothing else in the process.
"""

import importlib.util

if importlib.util.find_spec('mmcv') is None or importlib.util.find_spec('mmcv._ext') is None:
    raise ImportError(
        'deformable_vit needs mmcv with its compiled ops, and the mmcv of this environment has none '
        '(pip installs it without them when its build sees no torch). In a checkout run `make setup`. Elsewhere run: '
        "pip install 'setuptools<80' wheel ninja && "
        'pip install --no-build-isolation --no-deps --no-cache-dir --no-binary mmcv --force-reinstall mmcv==2.1.0'
    )

from ._compat import find_configs_by_import_name
from ._config_lookup import find_own_configs
from .backbones import DAT, DPT, PVT, PVTv2
from .checkpoints import enable_safe_loading

__version__ = '0.1.0'
__all__ = ['DAT', 'DPT', 'PVT', 'PVTv2', '__version__']

enable_safe_loading()
find_configs_by_import_name()
find_own_configs()
