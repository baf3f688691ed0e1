"""Deformable pyramid backbones for MMDetection, MMSegmentation and MMPreTrain.

Importing this package registers its backbones in ``mmengine.registry.MODELS``, where all three hosts find them, and
makes checkpoint loading safe and resumable on current torch (see :mod:`deformable_vit.checkpoints`).
"""

import importlib.util

if importlib.util.find_spec('mmcv') is None or importlib.util.find_spec('mmcv._ext') is None:
    raise ImportError(
        'deformable_vit needs mmcv with its compiled ops, and the mmcv of this environment has none '
        '(pip installs it without them when its build sees no torch). In a checkout run `make setup`. Elsewhere run: '
        "pip install 'setuptools<80' wheel ninja && "
        'pip install --no-build-isolation --no-deps --no-cache-dir --no-binary mmcv --force-reinstall mmcv==2.1.0'
    )

from . import backbones, checkpoints

__all__ = ['backbones', 'checkpoints']
