"""Helpers that read and build the configs of the project."""

import copy
import importlib
from functools import cache
from pathlib import Path
from unittest import mock

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import init_default_scope
from running import ROOT

# All but the files of _base_, which only other configs inherit.
CONFIGS = sorted(p for p in (ROOT / 'configs').glob('*/*.py') if p.parent.name != '_base_')
MODELS = ('pvt', 'pvtv2', 'dpt', 'dat', 'dat++')
LISTED = ('baselines', 'dat', 'dpt', 'pvt', 'pvtv2')  # directories with a metafile


_cfg_path = Config._get_cfg_path
_external = cache(lambda cfg_path: _cfg_path(cfg_path, ''))


@cache
def _parsed(path: Path) -> Config:
    # For every `mmdet::...` mmengine reads all metafiles of mmdet, which takes nine tenths of the time.
    def cfg_path(name: str, filename: str) -> tuple[str, str | None]:
        return _external(name) if '::' in name else _cfg_path(name, filename)

    with mock.patch.object(Config, '_get_cfg_path', staticmethod(cfg_path)):
        return Config.fromfile(path)


def load(path: Path) -> Config:
    """Return a copy of the config at ``path``, which is parsed only once."""
    return copy.deepcopy(_parsed(path))


def build(config: Config, device: str = 'meta') -> torch.nn.Module:
    """Build the model of a config, on the meta device (no values) unless it is a Swin Transformer, which needs them."""
    if 'Swin' in config.model.backbone.type:
        device = 'cpu'
    registry = importlib.import_module(f'{config.default_scope}.registry').MODELS
    init_default_scope(config.default_scope)
    if 'data_preprocessor' in config:
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    with torch.device(device):
        return registry.build(config.model)


def family(path: Path) -> str:
    """Return ``pvt``, ``pvtv2``, ``dpt``, ``dat``, ``dat++``, or the name of the directory."""
    return 'dat++' if path.parent.name == 'dat' and '-pp_' in path.stem else path.parent.name


def of_family(name: str) -> list[Path]:
    return [p for p in CONFIGS if family(p) == name]


def head(path: Path) -> str:
    """Return ``retinanet``, ``fpn``, ...; ``in1k`` for a classifier; ``mask2former-semantic`` also for ADE20K."""
    name = path.stem.split('_')[0]
    if name == 'mask2former' and '_ade20k-' in path.stem:
        return 'mask2former-semantic'
    return 'in1k' if '_in1k' in path.stem else name


@cache
def metafile(directory: str) -> dict[str, dict]:
    """Return the entries of ``configs/<directory>/metafile.yml`` by name."""
    models = yaml.safe_load((ROOT / 'configs' / directory / 'metafile.yml').read_text())['Models']
    entries = {model['Name']: model for model in models}
    assert len(entries) == len(models), f'{directory}/metafile.yml lists a config twice'
    return entries


def smallest(paths: list[Path]) -> dict[tuple[str, str], Path]:
    """Return the smallest config of each combination of family and head."""
    small = ('pvt-t_', 'dpt-t_', 'dat-t_', 'dat-t-pp_', 'pvtv2-b1_', '-tiny_', '-tiny-pp_')
    first: dict[tuple[str, str], Path] = {}
    for path in sorted(paths, key=lambda p: (not any(size in p.stem for size in small), p)):
        first.setdefault((family(path), head(path)), path)
    return first
