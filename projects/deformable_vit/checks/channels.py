"""Channels of images: what the data preprocessor normalizes and what the backbone takes."""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from .._nested import type_name
from .problem import Problem
from .types import find_type

_PREPROCESSORS = ('', 'DetDataPreprocessor', 'SegDataPreProcessor', 'ClsDataPreprocessor')
_LOADING = "LoadImageFromFile reads all channels with color_type='unchanged', one with 'grayscale'"


def check_channels(config: Config) -> Iterator[Problem]:
    """Yield settings of ``data_preprocessor`` that cannot give the backbone its ``in_channels``."""
    model = config.get('model') or {}
    backbone, preprocessor = model.get('backbone'), model.get('data_preprocessor') or config.get('data_preprocessor')
    if not isinstance(backbone, dict) or not isinstance(preprocessor, dict):
        return
    if type_name(preprocessor.get('type', '')) not in _PREPROCESSORS:
        return
    channels, is_mmdet = _in_channels(backbone, config), config.get('default_scope') == 'mmdet'
    if not isinstance(channels, int):
        return
    mean = preprocessor.get('mean')
    count = 1 if mean is None else len(mean)
    if count not in ((1, 3) if is_mmdet else (1, channels)) or count not in (1, channels):
        allowed = 'one value for all channels' if is_mmdet else f'{channels} values, or one for all channels'
        detail = f'set mean and std to {allowed}' + ("; mmdet's takes 1 or 3" if is_mmdet else '')
        wrong = f'model.data_preprocessor.mean has {count} values and model.backbone.in_channels is {channels}'
        yield Problem('error', 'config', wrong, detail=f'{detail}; {_LOADING}')
    elif is_mmdet and channels != 3 and preprocessor.get('bgr_to_rgb'):
        wrong = f'model.data_preprocessor.bgr_to_rgb keeps three channels and model.backbone.in_channels is {channels}'
        yield Problem('error', 'config', wrong, detail=f'set bgr_to_rgb=False; {_LOADING}')


def _in_channels(backbone: dict[str, Any], config: Config) -> Any:
    """Return ``in_channels`` of a backbone; None for a class without, such as one that gives it to another backbone."""
    if 'in_channels' in backbone:
        return backbone['in_channels']
    kind = find_type(backbone.get('type'), config.get('default_scope') or 'mmengine')
    parameter = inspect.signature(kind).parameters.get('in_channels') if inspect.isclass(kind) else None
    return parameter and parameter.default
