"""Configs are short files of differences: plain assignments, short chains, no leftover variables."""

import ast
from pathlib import Path

import pytest
from config_files import CONFIGS, load, slow_but_smallest
from running import ROOT

from deformable_vit.checks import TOP_LEVEL

FILES = sorted((ROOT / 'configs').rglob('*.py'))
FAMILIES = ('baselines', 'demo', 'pvt', 'pvtv2', 'dpt', 'dat')

# A config consists of assignments of literals, calls of dict and len, and references to its own variables.
SYNTAX = (
    *(ast.Module, ast.Assign, ast.Name, ast.Load, ast.Store, ast.Constant, ast.Call, ast.keyword),
    *(ast.List, ast.Tuple, ast.Dict, ast.Starred, ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop),
    *(ast.JoinedStr, ast.FormattedValue),
)
CALLS = {'dict', 'len'}

# The keys that mmengine's Runner and the tools read ...
KEYS = TOP_LEVEL
# ... and the variables that the configs of mmdet, mmseg and mmpretrain have, too.
VARIABLES = {
    *('dataset_type', 'data_root', 'backend_args', 'metainfo', 'train_pipeline', 'test_pipeline', 'crop_size'),
    *('img_ratios', 'bgr_mean', 'bgr_std', 'norm_cfg', 'backbone_norm_cfg', 'optimizer', 'max_epochs'),
    *('max_iters', 'vis_backends', 'num_stages', 'num_proposals', 'num_classes', 'num_things_classes'),
    *('num_stuff_classes', 'image_size', 'batch_augments', 'embed_multi', 'backbone_norm_multi', 'interval'),
    'dynamic_intervals',
}
# The templates for a user's own data.
OWN_DATA = {'checkpoint', 'classes'}


def bases(path: Path) -> list[Path]:
    """Return our files that the config at ``path`` inherits directly."""
    tree = ast.parse(path.read_text())
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '_base_']
    named = ast.literal_eval(values[0]) if values else []
    return [
        (path.parent / base).resolve() for base in ([named] if isinstance(named, str) else named) if '::' not in base
    ]


def chain(path: Path) -> list[Path]:
    """Return the longest chain of our files from ``path`` to what it inherits."""
    return [path, *max((chain(base) for base in bases(path)), key=len, default=[])]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / 'configs').with_suffix(''))


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_chain_has_at_most_three_files(path: Path) -> None:
    assert len(chain(path)) <= 3, ' -> '.join(map(name, chain(path)))


@pytest.mark.parametrize('path', [p for p in CONFIGS if p.parent.name in FAMILIES], ids=name)
def test_config_inherits_only_its_directory_and_base(path: Path) -> None:
    for base in bases(path):
        directory = base.relative_to(ROOT / 'configs').parts[0]
        assert directory in (path.parent.name, '_base_'), f'{name(path)} inherits {name(base)}'


@pytest.mark.parametrize('path', [p for p in FILES if p not in CONFIGS], ids=name)
def test_base_inherits_only_openmmlab(path: Path) -> None:
    assert not bases(path)


def violations(source: str) -> list[str]:
    """Return what else than plain assignments a config contains."""
    found = []
    for node in ast.walk(ast.parse(source)):
        assigns = isinstance(node, ast.Assign) and not all(isinstance(target, ast.Name) for target in node.targets)
        calls = isinstance(node, ast.Call) and ast.unparse(node.func) not in CALLS
        if assigns or calls or not isinstance(node, SYNTAX):
            found.append(f'line {getattr(node, "lineno", "?")}: {type(node).__name__}')
    return found


@pytest.mark.parametrize('path', FILES, ids=name)
def test_config_only_assigns_plain_values(path: Path) -> None:
    assert not violations(path.read_text())


@pytest.mark.parametrize(
    'source',
    [
        "model['backbone'] = dict()",
        'train_pipeline[2].update(scale=640)',
        'if deep:\n    lr = 1',
        'for i in range(3):\n    lr = i',
        'scales = [(1333, s) for s in (640, 800)]',
        'sizes = {s: 1 for s in (640, 800)}',
        'lr = 1 if deep else 2',
        'train_pipeline = _base_.train_pipeline[:2]',
        'lr += 1',
    ],
)
def test_syntax_check_finds_programs(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize('path', slow_but_smallest(CONFIGS))
def test_resolved_config_has_only_known_keys(path: Path) -> None:
    known = KEYS | VARIABLES | (OWN_DATA if path.parent.name == 'own_data' else set())
    assert set(load(path)) <= known
