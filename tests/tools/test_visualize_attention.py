"""tools/visualize_attention.py: files that it writes, and errors in one line; in this process, for speed."""

import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from _attention_outputs import check_outputs, printable, write
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader
from official_names import official_names
from PIL import Image
from running import ROOT

from deformable_vit.engine import UserError

CONFIG = ROOT / 'configs' / 'demo' / 'deformable-detr_dat_shapes.py'
Visualize = Callable[..., tuple[int, str, str]]


@pytest.fixture
def visualize(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Visualize:
    """Run the tool in an empty directory; return its exit status and what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', ['visualize_attention.py', *map(str, args)])
        try:
            runpy.run_path(str(ROOT / 'tools' / 'visualize_attention.py'), run_name='__main__')
        except SystemExit as exit_:
            return int(exit_.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp('checkpoint') / 'model.pth'
    config = Config.fromfile(CONFIG)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    model.init_weights()  # mmdet leaves the level embedding uninitialized before it
    torch.save(dict(state_dict=model.state_dict()), file)
    return file


@pytest.fixture
def arguments(checkpoint: Path, tmp_path: Path) -> list[str]:
    """Return config, checkpoint and image."""
    shutil.copy(checkpoint, tmp_path)
    Image.effect_noise((90, 60), 80).convert('RGB').save(tmp_path / 'image.png')
    return [str(CONFIG), 'model.pth', 'image.png']


def page_of(file: Path) -> dict:
    """Return the JSON of a page."""
    text = re.search(r'<script type="application/json" id="page">(.*?)</script>', file.read_text(encoding='utf-8'))
    assert text is not None
    return json.loads(text[1])


def error_of(done: tuple[int, str, str]) -> str:
    """Return the one line that the tool printed when it failed."""
    assert done[0] == 2
    assert 'Traceback' not in done[2]
    assert done[2].count('error: ') == 1
    return done[2].splitlines()[-1]


@pytest.mark.slow
def test_page_and_files(visualize: Visualize, arguments: list[str], tmp_path: Path) -> None:
    options = ['--out', 'page.html', '--png', 'a/view.png', '--svg', 'view.svg', '--json', 'view.json']
    code, out, _ = visualize(*arguments, *options, '--query', 20, 30, '--stage', 3, '--head', 2)
    assert code == 0
    last = out.splitlines()[-1]
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
    assert page_of(tmp_path / 'page.html')['initial']['object'] == decoder['object']

    assert '--png a/view.png exists already' in error_of(visualize(*arguments, *options))
    name = os.fsdecode(b'caf\xe9.png')  # Latin-1
    (tmp_path / 'image.png').rename(tmp_path / name)
    code, out, _ = visualize(*arguments[:2], name, '--overwrite', '--out', 'page.html', '--json', 'view.json')
    assert code == 0
    assert 'caf\ufffd.png' in (tmp_path / 'page.html').read_text(encoding='utf-8')
    decoder = json.loads((tmp_path / 'view.json').read_text())['layers'][-1]
    assert page_of(tmp_path / 'page.html')['initial']['object'] == decoder['object']


@pytest.mark.slow
def test_errors_are_one_line(visualize: Visualize, arguments: list[str], tmp_path: Path) -> None:
    for options, words in (
        (['--query', '500', '10'], '--query 500 10 is outside the image of 90 x 60 pixels'),
        (['--stage', '3', '--block', '9'], '--stage 3 --block 9: the model has no such layer; it has 1.1 (window)'),
        (
            ['--stage', '1', '--mode', 'displacement', '--out', 'page.html'],
            "layer 1.1: window has no mode 'displacement'; choose from query, locations, received",
        ),
        (['--stage', '3', '--head', '1', '--group', '2'], '--head 1 --group 2: head 1 is in group 1'),
    ):
        assert words in error_of(visualize(*arguments, *options))
    weights = torch.load(tmp_path / 'model.pth')
    # Finite weights, because reading refuses others, whose products overflow.
    weights['state_dict']['backbone.stages.0.blocks.0.attn.qkv.weight'][:] = 3e38
    torch.save(weights, tmp_path / 'model.pth')
    assert 'layer backbone.stages.0.blocks.0.attn is not finite: ' in error_of(visualize(*arguments))
    assert not (tmp_path / 'work_dirs').exists()


LONG = 'a' * 300


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['c.pth', 'i.png', '--out', '.'], '--out . is a directory; name a file'),
        (['c.pth', 'i.png', '--png', 'i.png'], '--png i.png is the image; choose another file'),
        (['c.pth', 'i.png', '--png', 'link.png', '--overwrite'], '--png link.png is the image'),
        (['c.pth', 'i.png', '--png', 'hard.png', '--overwrite'], '--png hard.png is the image'),
        (['c.pth', 'i.png', '--json', './c.pth', '--overwrite'], '--json ./c.pth is the checkpoint'),
        (['c.pth', 'i.png', '--out', str(CONFIG), '--overwrite'], 'is the config; choose another file'),
        (['c.pth', 'i.png', '--out', 'd/x', '--svg', './d/../d/x'], '--out d/x is the file of --svg'),
        (['c.pth', 'i.png', '--out', 'own.html'], '--out own.html exists already; choose another file, or pass --over'),
        (['c.pth', 'i.png', '--out', 'i.png/page.html'], '--out i.png/page.html cannot be written: '),
        (['c.pth', 'i.png', '--out', LONG], 'cannot be written: File name too long'),
        (['c.pth', LONG], 'File name too long'),
        (['c.pth', '~nobody_of_this_name/i.png'], 'home directory'),
        (['c.pth', 'gone.png'], 'image gone.png does not exist'),
        (['gone.pth', 'i.png'], 'checkpoint gone.pth does not exist'),
        ([LONG, 'i.png'], 'File name too long'),
    ],
)
def test_errors_before_anything_is_loaded(
    args: list[str], words: str, visualize: Visualize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', pytest.fail)
    Image.new('RGB', (8, 8)).save('i.png')
    Path('link.png').symlink_to('i.png')
    Path('hard.png').hardlink_to('i.png')
    for name in ('c.pth', 'own.html'):
        Path(name).write_text('')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert words in error_of(visualize(CONFIG, *args))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_config_name_that_is_too_long(visualize: Visualize) -> None:
    assert 'File name too long' in error_of(visualize(LONG, 'c.pth', 'i.png'))


def test_outputs_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'access', lambda *_: False)
    with pytest.raises(UserError, match='--out .*/new/page.html cannot be written: Permission denied'):
        check_outputs({'--out': str(tmp_path / 'new' / 'page.html')}, {}, overwrite=False)
    (tmp_path / 'page.html').touch()
    with pytest.raises(UserError, match='--out .*page.html cannot be written: Permission denied'):
        check_outputs({'--out': str(tmp_path / 'page.html')}, {}, overwrite=True)
    with pytest.raises(UserError, match='cannot be written: Is a directory'):
        write(str(tmp_path), b'')
    assert printable(os.fsdecode(b'caf\xe9')) == 'caf\ufffd'


@pytest.mark.slow
@pytest.mark.parametrize('family', ['pvt', 'pvtv2', 'dpt', 'dat', 'datpp'])
def test_official_checkpoints_give_the_same_view(visualize: Visualize, arguments: list[str], family: str) -> None:
    """Parameters with the names of the official implementations are loaded as they are."""
    config = ROOT / 'configs' / 'demo' / f'retinanet_{family}_shapes.py'
    loaded = Config.fromfile(config)
    init_default_scope(loaded.default_scope)
    model = MODELS.build(loaded.model)
    model.init_weights()
    own = model.state_dict()
    views = []
    for file, state_dict in (('own.pth', own), ('official.pth', official_names(own, family))):
        torch.save(dict(state_dict=state_dict), file)
        status, _, err = visualize(config, file, arguments[2], '--json', f'{file}.json')
        assert status == 0, err
        views.append(json.loads(Path(f'{file}.json').read_text()))
    assert set(torch.load('official.pth')['state_dict']) != set(own)
    assert views[0]['layers'] == views[1]['layers']
