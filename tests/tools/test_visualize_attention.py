"""tools/visualize_attention.py: files that it writes, and errors in one line; in this process, for speed."""

import json
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from official_names import official_names
from PIL import Image
from running import ROOT

CONFIG = ROOT / 'configs' / 'demo' / 'deformable-detr_dat_shapes.py'
Visualize = Callable[..., tuple[int, str, str]]


@pytest.fixture
def visualize(call: Visualize, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Visualize:
    """Run the tool in a directory with ``image.png``."""
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((90, 60), 80).convert('RGB').save('image.png')
    return partial(call, 'visualize_attention.py')


def state_dict_of(path: Path) -> dict[str, torch.Tensor]:
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    model.init_weights()  # mmdet leaves the level embedding uninitialized before it
    return model.state_dict()


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp('checkpoint') / 'model.pth'
    torch.save(dict(state_dict=state_dict_of(CONFIG)), file)
    return file


def error_of(done: tuple[int, str, str]) -> str:
    """Return the one line that the tool printed when it failed."""
    assert done[0] == 2
    assert 'Traceback' not in done[2]
    assert done[2].count('error: ') == 1
    return done[2].splitlines()[-1]


@pytest.mark.slow
def test_page_and_files(visualize: Visualize, checkpoint: Path) -> None:
    arguments, options = [CONFIG, checkpoint, 'image.png'], ['--out', 'page.html', '--json', 'view.json']
    more = ['--png', 'a/view.png', '--svg', 'view.svg', '--query', 20, 30, '--stage', 3, '--head', 2]
    code, out, _ = visualize(*arguments, *options, *more)
    assert code == 0
    assert re.search(r'[\d.]+ MB: page\.html', out)
    assert '<!DOCTYPE html>' in Path('page.html').read_text(encoding='utf-8')
    assert Image.open('a/view.png').width > 500
    assert '<svg' in Path('view.svg').read_text()
    found = json.loads(Path('view.json').read_text())
    assert found['image'] == dict(width=90, height=60)
    assert {layer['kind'] for layer in found['layers']} == {'window', 'shifted_window', 'deformable', 'deformable_detr'}
    decoder = found['layers'][-1]
    assert len(decoder['boxes'][0]) == 4
    assert 0 < decoder['score'] < 1
    data = Path('page.html').read_text().split('<script type="application/json" id="page">')[1]
    page, _ = json.JSONDecoder().raw_decode(data)
    initial = page['initial']
    assert (initial['head'], initial['query']) == (1, [20, 30])
    assert page['layers'][initial['layer']]['stage'] == 3
    assert page['drawn'].startswith('data:image/jpeg')

    assert '--png a/view.png exists already' in error_of(visualize(*arguments, *options, *more))
    name = os.fsdecode(b'caf\xe9.png')  # Latin-1
    Path('image.png').rename(name)
    assert visualize(*arguments[:2], name, *options, '--overwrite')[0] == 0
    assert 'caf\ufffd.png' in Path('page.html').read_text(encoding='utf-8')


@pytest.mark.slow
def test_errors_are_one_line(visualize: Visualize, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint, 'c.pth')
    Path('text.png').write_text('no image')
    Path('link.png').symlink_to('image.png')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for args, words in (
        (['c.pth', 'image.png', '--query', '500', '10'], 'is outside the image of 90 x 60 pixels'),
        (['c.pth', 'image.png', '--stage', '3', '--block', '9'], 'no such --stage, --block or --blocks; it has 1.1 ('),
        (['c.pth', 'image.png', '--head', '1', '--group', '2'], 'not allowed with argument --head'),
        (['c.pth', 'image.png', '--stage', '3', '--head', '9'], '--head 9: this deformable layer has 4; choose 1 to 4'),
        (['c.pth', 'text.png'], 'image text.png: '),
        (['c.pth', 'image.png', '--png', 'link.png', '--overwrite'], '--png link.png is the image'),
        (['c.pth', 'image.png', '--json', './c.pth', '--overwrite'], '--json c.pth is the checkpoint'),
        (['c.pth', 'image.png', '--out', 'd', '--svg', './d/../d'], '--out d is the file of --svg'),
        (['c.pth', 'image.png', '--out', '.'], '--out . is a directory; name a file'),
        (['c.pth', 'image.png', '--out', 'text.png'], '--out text.png exists already; pass --overwrite'),
        (['c.pth', 'gone.png'], 'image gone.png does not exist'),
        (['gone.pth', 'image.png'], 'checkpoint gone.pth does not exist'),
        (['c.pth', 'a' * 300], 'File name too long'),
    ):
        assert words in error_of(visualize(CONFIG, *args)), args
        shutil.rmtree('work_dirs', ignore_errors=True)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_an_official_checkpoint_gives_the_same_view(visualize: Visualize) -> None:
    """Parameters with the names of the official implementation are loaded as they are."""
    config = ROOT / 'configs' / 'demo' / 'retinanet_dpt_shapes.py'
    own = state_dict_of(config)
    for name, state_dict in (('own', own), ('official', official_names(own, 'dpt'))):
        torch.save(dict(state_dict=state_dict), f'{name}.pth')
        assert visualize(config, f'{name}.pth', 'image.png', '--json', f'{name}.json')[0] == 0
    assert set(torch.load('official.pth')['state_dict']) != set(own)
    assert Path('own.json').read_text() == Path('official.json').read_text()
