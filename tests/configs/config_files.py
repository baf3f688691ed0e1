"""The configs of the project, as tests read them."""

import copy
import importlib
from functools import cache
from pathlib import Path

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import init_default_scope
from running import ROOT

CONFIGS = sorted(p for p in (ROOT / 'configs').glob('*/*.py') if p.parent.name != '_base_')


@cache
def _parsed(path: Path) -> Config:
    return Config.fromfile(path)


def load(path: Path) -> Config:
    """The config at ``path``; it is parsed once, and each caller gets a copy."""
    return copy.deepcopy(_parsed(path))


def build(config: Config, device: str = 'meta') -> torch.nn.Module:
    """The model of a config; on the meta device, without values, unless a host's backbone needs them to be built."""
    if 'Swin' in config.model.backbone.type:
        device = 'cpu'
    registry = importlib.import_module(f'{config.default_scope}.registry').MODELS
    init_default_scope(config.default_scope)
    if 'data_preprocessor' in config:
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    with torch.device(device):
        return registry.build(config.model)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def family(path: Path) -> str:
    """``pvt``, ``pvtv2``, ``dpt``, ``dat``, ``dat++``, or the folder's name."""
    return 'dat++' if path.parent.name == 'dat' and '-pp_' in path.stem else path.parent.name


def head(path: Path) -> str:
    """``retinanet``, ``fpn``, ...; ``in1k`` for a classifier."""
    return 'in1k' if '_in1k' in path.stem else path.stem.split('_')[0]


@cache
def metafile(folder: str) -> dict:
    """What ``configs/<folder>/metafile.yml`` says."""
    return yaml.safe_load((ROOT / 'configs' / folder / 'metafile.yml').read_text())
