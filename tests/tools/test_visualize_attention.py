"""tools/visualize_attention.py: files that it writes, and errors in one line."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from running import ROOT

CONFIG = ROOT / 'configs' / 'demo' / 'deformable-detr_dat_shapes.py'


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Return config, checkpoint and image."""
    config = Config.fromfile(CONFIG)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    model.init_weights()  # mmdet leaves the level embedding uninitialized before it
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    Image.effect_noise((90, 60), 80).convert('RGB').save(tmp_path / 'image.png')
    return [str(CONFIG), 'model.pth', 'image.png']


@pytest.mark.slow
def test_page_and_files(tool, arguments: list[str], tmp_path: Path) -> None:
    options = [
        '--out',
        'page.html',
        '--png',
        'a/view.png',
        '--svg',
        'view.svg',
        '--json',
        'view.json',
        '--query',
        20,
        30,
    ]
    done = tool('visualize_attention.py', *arguments, *options, '--stage', 3, '--head', 2)
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r'[\d.]+ MB in [\d.]+ s: page\.html', last)
    assert '<!DOCTYPE html>' in (tmp_path / 'page.html').read_text(encoding='utf-8')
    assert Image.open(tmp_path / 'a' / 'view.png').width > 500
    assert '<svg' in (tmp_path / 'view.svg').read_text()
    found = json.loads((tmp_path / 'view.json').read_text())
    assert found['image'] == dict(width=90, height=60)
    kinds = [layer['kind'] for layer in found['layers']]
    assert {'window', 'shifted_window', 'deformable', 'deformable_detr'} == set(kinds)
    decoder = found['layers'][-1]
    assert len(decoder['boxes'][0]) == 4
    assert 0 < decoder['score'] < 1


@pytest.mark.slow
def test_errors_are_one_line(tool, arguments: list[str], tmp_path: Path) -> None:
    for options, words in (
        (['--query', '500', '10'], '--query 500 10 is outside the image of 90 x 60 pixels'),
        (['--stage', '3', '--block', '9'], '--stage 3 --block 9: the model has no such layer; it has 1.1 (window)'),
    ):
        done = tool('visualize_attention.py', *arguments, *options, ok=False)
        assert done.returncode == 2
        assert 'Traceback' not in done.stderr
        assert words in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'work_dirs').exists()
