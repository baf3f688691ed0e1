"""Reading checkpoint files never runs code from them, also where mmengine reads them, and failures name the file."""

import pickle
import re
import zipfile
from pathlib import Path

import mmengine.runner.checkpoint
import numpy as np
import pytest
import torch
import yaml
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, load_checkpoint
from running import ROOT
from torch import nn

from deformable_vit.checkpoints import CheckpointError, enable_safe_loading, read_checkpoint, read_state_dict
from deformable_vit.checkpoints.safe_loading import load_from_http, load_from_local, load_from_openmmlab

WEB_PAGE = 'https://drive.google.com/file/d/1aBc/view?usp=sharing'


def save(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


class Attack:
    """Write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize('unsafe_by_default', [False, True])
def test_a_checkpoint_that_runs_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsafe_by_default: bool
) -> None:
    if unsafe_by_default:  # a common workaround for old code
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    victim = tmp_path / 'victim'
    path = save(tmp_path / 'attack.pth', {'state_dict': {'x': torch.zeros(1)}, 'attack': Attack(victim)})
    with pytest.raises(CheckpointError, match=r'attack.pth is refused: it needs .*that could run code'):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match='is refused'):
        CheckpointLoader.load_checkpoint(path)
    with pytest.raises(CheckpointError, match='is refused'):
        load_checkpoint(nn.Linear(1, 1), path)
    assert not victim.exists()
    torch.load(path, weights_only=False)  # the attack works where loading is unsafe
    assert victim.exists()


def test_a_program_in_a_checkpoint_is_dropped(tmp_path: Path) -> None:
    """mmengine evaluates ``meta.config`` when it resumes, and its inferencers evaluate ``meta.cfg``."""
    meta = {'config': 'import os', 'cfg': 'import os', 'epoch': 1}
    path = save(tmp_path / 'x.pth', {'meta': meta, 'state_dict': {'x': torch.zeros(1)}})
    assert CheckpointLoader.load_checkpoint(path)['meta'] == {'epoch': 1}


def test_log_histories_load_and_no_other_use_of_getattr(tmp_path: Path) -> None:
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 1])
    loaded = read_checkpoint(save(tmp_path / 'history.pth', {'loss': history}))['loss']
    assert loaded.mean(2) == 3.0
    assert loaded.data[0].tolist() == [1.0, 2.0, 4.0]

    class Reach:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, '__init__'))

    with pytest.raises(CheckpointError, match='is refused'):
        read_checkpoint(save(tmp_path / 'reach.pth', {'x': Reach()}))


def test_importing_the_package_makes_mmengine_load_safely() -> None:
    """This is all that the import changes; calling it again changes nothing."""
    schemes = CheckpointLoader._schemes
    assert schemes[''] is load_from_local
    assert schemes['http://'] is schemes['https://'] is load_from_http
    assert schemes['open-mmlab://'] is schemes['openmmlab://'] is load_from_openmmlab
    assert mmengine.runner.checkpoint.load_from_http is load_from_http
    allowed = set(map(str, torch.serialization.get_safe_globals()))
    assert 'mmengine.logging.history_buffer.HistoryBuffer' in str(allowed)
    assert not {HistoryBuffer, np.ndarray, np.dtype, getattr} & set(torch.serialization.get_safe_globals())
    before = dict(schemes)
    enable_safe_loading()
    assert dict(schemes) == before
    assert set(map(str, torch.serialization.get_safe_globals())) == allowed


def test_downloads_are_checked_before_they_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when they lie in torch's cache."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    served = Path(save(tmp_path / 'served.pth', {'state_dict': {'x': torch.ones(2)}})).read_bytes()
    asked = []

    def download(url: str, target: str) -> None:
        asked.append(url)
        Path(target).write_bytes(served)

    monkeypatch.setattr('deformable_vit.checkpoints.safe_loading.download_url_to_file', download)
    for _ in range(2):
        assert torch.equal(read_state_dict('https://example.org/x.pth')['x'], torch.ones(2))
    assert asked == ['https://example.org/x.pth']

    victim, cached = tmp_path / 'victim', tmp_path / 'cache' / 'hub' / 'checkpoints' / 'x.pth'
    save(cached, {'attack': Attack(victim)})
    with pytest.raises(CheckpointError, match=r'example.org/x.pth is refused.*to download it again, remove .*x.pth'):
        read_checkpoint('https://example.org/x.pth')
    assert not victim.exists()


class DownloadError(Exception):
    """Raised in place of a download."""


@pytest.fixture
def _no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, *_args: object, **_kwargs: object) -> None:
        raise DownloadError(url)

    monkeypatch.setattr('deformable_vit.checkpoints.safe_loading.download_url_to_file', download)


@pytest.mark.usefixtures('_no_downloads')
@pytest.mark.parametrize('url', [WEB_PAGE, 'https://cloud.tsinghua.edu.cn/f/12ab/', 'http://example.org'])
def test_a_link_to_a_web_page_is_an_error_that_says_what_to_do(url: str) -> None:
    """torch would name the file in its cache after the page, or fail with "Is a directory"."""
    message = re.escape(
        f'checkpoint {url} has no file name: it is probably a web page; download the file with a browser and '
        'pass its path'
    )
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(nn.Linear(1, 1), url)
    backbone = MODELS.build(dict(type='PVTv2', arch='b0', init_cfg=dict(type='Pretrained', checkpoint=url)))
    with pytest.raises(CheckpointError, match=message):
        backbone.init_weights()


def is_web_page(link: str) -> bool:
    try:
        load_from_http(link)
    except CheckpointError as error:
        return 'has no file name' in str(error)
    except DownloadError:
        return False
    return False


@pytest.mark.usefixtures('_no_downloads')
def test_links_of_the_metafiles_are_files_or_known_as_web_pages() -> None:
    links: set[str] = set()
    for path in (ROOT / 'configs').glob('*/metafile.yml'):
        links |= {model['Weights'] for model in yaml.safe_load(path.read_text())['Models'] if model.get('Weights')}
    files = {link for link in links if link.endswith('.pth')}
    assert files
    assert files != links
    assert {link for link in links if not is_web_page(link)} == files


@pytest.mark.slow
@pytest.mark.usefixtures('_no_downloads')
def test_get_model_of_mmpretrain_says_what_to_do_about_web_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpretrain.apis import ModelHub, get_model

    monkeypatch.setattr(ModelHub, '_models_dict', {})
    monkeypatch.setattr(ModelHub, '_ModelHub__mmpretrain_registered', True)  # skips hundreds of metafiles
    ModelHub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
    with pytest.raises(CheckpointError, match=r'cloud.tsinghua.edu.cn/.* has no file name'):
        get_model('dat-tiny_8xb128_in1k', pretrained=True)


def test_unreadable_files_are_errors_that_name_them(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='missing.pth does not exist'):
        read_checkpoint(tmp_path / 'missing.pth')
    with pytest.raises(CheckpointError, match='is a directory'):
        read_checkpoint(tmp_path)
    (tmp_path / 'text.pth').write_text('<html>not found</html>')
    with pytest.raises(CheckpointError, match='text.pth is damaged or not a checkpoint'):
        read_checkpoint(tmp_path / 'text.pth')
    whole = Path(save(tmp_path / 'whole.pth', {'x': torch.zeros(1000)})).read_bytes()
    (tmp_path / 'half.pth').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match='half.pth is damaged'):
        read_checkpoint(tmp_path / 'half.pth')
    with pytest.raises(CheckpointError, match='holds no state dict'):
        read_state_dict(save(tmp_path / 'numbers.pth', {'epoch': 3}))
    assert zipfile.is_zipfile(tmp_path / 'whole.pth')
    assert pickle.loads(pickle.dumps(CheckpointError('x'))).args == ('x',)


def test_a_file_without_read_permission_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_args: object, **_kwargs: object) -> None:
        raise PermissionError('Permission denied')  # root reads every file

    path = save(tmp_path / 'secret.pth', {'x': torch.zeros(1)})
    monkeypatch.setattr(torch, 'load', load)
    with pytest.raises(CheckpointError, match='secret.pth cannot be read: Permission denied'):
        read_checkpoint(path)


def test_a_failed_download_is_an_error_that_names_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_args: object, **_kwargs: object) -> None:
        raise OSError('Name or service not known')

    monkeypatch.setattr('deformable_vit.checkpoints.safe_loading.download_url_to_file', download)
    with pytest.raises(CheckpointError, match=r'example.invalid/x.pth cannot be read: Name or service not known'):
        read_checkpoint('https://example.invalid/x.pth')


@pytest.mark.parametrize('key', ['model', 'state_dict', None])
def test_state_dicts_are_found_under_every_usual_key(tmp_path: Path, key: str | None) -> None:
    """Also for mmengine; names of a distributed model lose their prefix."""
    weights = {'weight': torch.ones(1, 2), 'bias': torch.ones(1)}
    path = save(tmp_path / 'x.pth', {key: weights, 'epoch': 3} if key else weights)
    layer = nn.Linear(2, 1)
    load_checkpoint(layer, path)
    assert layer.weight.eq(1).all()
    assert read_state_dict(path).keys() == weights.keys()
    distributed = save(tmp_path / 'y.pth', {f'module.{k}': v for k, v in weights.items()})
    assert read_state_dict(distributed).keys() == weights.keys()
