"""Configs in mmengine's pure Python style, whose types are imported classes, made from configs with names."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from deformable_vit.checks import find_type

HEADER = 'from mmengine.config import read_base\n'


def write_pure_python(path: Path, config: Config) -> Path:
    """Write a config with classes as types, except for parts that OpenMMLab's own such configs leave as names."""
    imports: dict[str, Any] = {}

    def text(value: Any, key: str) -> str:
        if isinstance(value, dict):
            return 'dict(**{' + ', '.join(f'{k!r}: {text(v, k)}' for k, v in value.items()) + '})'
        if isinstance(value, (list, tuple)):
            inner = ', '.join(text(item, '') for item in value)
            return f'[{inner}]' if isinstance(value, list) else f'({inner}{"," if value else ""})'
        found = find_type(value, config.default_scope) if key == 'type' else None
        if isinstance(found, type) and found.__module__.split('.')[0] in (
            'mmcv',
            'mmengine',
            'mmdet',
            'mmseg',
            'mmpretrain',
            'torch',
            'deformable_vit',
        ):
            imports[found.__name__] = found
            return found.__name__
        return repr(value)

    body = [f'{key} = {text(value, key)}' for key, value in config.items() if key != 'custom_imports']
    lines = [f'from {found.__module__} import {name}' for name, found in imports.items()]
    path.write_text('\n'.join([*lines, *body]) + '\n')
    return path
