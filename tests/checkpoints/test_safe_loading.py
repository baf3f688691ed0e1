"""Loading a checkpoint runs no code from it by any door of mmengine, and finds damage; failures are one line."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import HOSTILE, Call, legacy, rebuilt, saved, training_state, write_hostile
from mmengine.config import ConfigDict
from mmengine.fileio import BaseStorageBackend, PetrelBackend, register_backend
from mmengine.infer import BaseInferencer
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch import nn
from toy_runner import Line, runner

from deformable_vit.checkpoints import official, official_weights, read_checkpoint, read_state_dict, safe_loading
from deformable_vit.errors import CheckpointError


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


class Storage(BaseStorageBackend):
    """Object storage that has one file."""

    content = b''

    def get(self, filepath: str) -> bytes:
        return self.content

    def get_text(self, filepath: str) -> str:
        raise NotImplementedError


def toy(path: str, **kwargs: object) -> Runner:
    return runner(Path(path).parent, load_from=path, **kwargs)


def build_backbone(path: str, **init_cfg: str) -> None:
    init_cfg = dict(type='Pretrained', checkpoint=path, **init_cfg)
    MODELS.build(dict(type='PVTv2', arch='b0', init_cfg=init_cfg)).init_weights()


def run_inferencer(path: str) -> None:
    """The inferencers of mmdet, mmseg and mmpretrain, without a config: mmengine evaluates one from the file."""
    BaseInferencer._init_model(None, ConfigDict(), path)


DOORS: list[Callable[[str], object]] = [
    CheckpointLoader.load_checkpoint,
    read_state_dict,
    run_inferencer,
    build_backbone,
    lambda path: build_backbone(path, prefix='backbone'),
    lambda path: Line(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights(),
    lambda path: load_checkpoint(nn.Linear(1, 1), path),
    lambda path: toy(path).train(),
    lambda path: toy(path, resume=True).train(),
    lambda path: toy(path).resume(path),
]
URLS = ['https://x.org/x.pth', 'http://x.org/x.pth', 's3://x/x.pth', 'petrel://x/x.pth', 'cluster:s3://x/x.pth']
URLS += ['torchvision://resnet50', 'modelzoo://resnet50', 'open-mmlab://resnet50_v1c', 'openmmlab://resnet50_v1c']
URLS += ['mmcls://resnet50', 'open-mmlab://resnet50_caffe', 'pavi://x']


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every URL give the file ``tmp_path / 'x.pth'``, and return those that are downloaded."""
    asked: list[str] = []

    def download(url: str, target: Path) -> None:
        asked.append(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / 'x.pth').read_bytes())

    monkeypatch.setattr(safe_loading, 'download', download)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    return asked


@pytest.mark.usefixtures('served')
def test_no_door_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where torch loads unsafely by default, a common workaround for old code."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / 'x.pth')
    write_hostile('program', Path(path))
    Storage.content = Path(path).read_bytes()
    register_backend('petrel', Storage, force=True)
    lines = []
    for door, source in [*((door, path) for door in DOORS), *((read_checkpoint, url) for url in URLS)]:
        with pytest.raises(CheckpointError) as caught:
            door(source)
        lines.append(str(caught.value))
    register_backend('petrel', PetrelBackend, force=True)
    assert all('is refused: it needs posix.system, which could run code' in line for line in lines[:-1])
    assert lines[-1] == 'checkpoint pavi://x has no known URL: download the file and pass its path'
    assert not Path('victim').exists()
    torch.load(path, weights_only=False)  # the attack works where loading is unsafe
    assert Path('victim').exists()


def test_no_scheme_of_mmengine_has_another_loader() -> None:
    """A new one of mmengine, or of the fork, needs one here."""
    own = {safe_loading.__name__, official.__name__}
    assert {loader.__module__ for loader in CheckpointLoader._schemes.values()} == own
    assert 'deformable_vit' not in str(torch.serialization.get_safe_globals())


def test_a_config_in_a_checkpoint_is_never_evaluated(tmp_path: Path) -> None:
    """mmengine evaluates ``meta.config`` when it resumes, and its inferencers one of the others."""
    program = f'import pathlib\npathlib.Path({str(tmp_path / "victim")!r}).touch()'
    runner(tmp_path / 'work').train()
    state = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    state['meta'].update(config=program, cfg=program)
    state['message_hub']['runtime_info']['cfg'] = program
    path = written(tmp_path / 'x.pth', saved(state))
    with pytest.raises(ValueError, match='Cannot find the config in the checkpoint'):
        run_inferencer(path)
    toy(path, resume=True, epochs=2).train()
    assert not (tmp_path / 'victim').exists()
    for hostile in ({'message_hub': [1]}, {'message_hub': {'runtime_info': 3}}, {'meta': 'x'}):
        assert read_checkpoint(written(tmp_path / 'y.pth', saved(hostile))) == hostile


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_are_refused_on_one_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pattern = write_hostile(name, Path('hostile.pth'))
    with pytest.raises(CheckpointError, match=pattern) as caught:
        read_checkpoint('hostile.pth')
    assert str(caught.value).startswith('checkpoint hostile.pth ')
    assert str(caught.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ['hostile.pth']


def test_containers_that_hold_themselves_or_double_take_no_time(tmp_path: Path) -> None:
    loop: list = [torch.ones(1)]
    loop.append(loop)
    for _ in range(40):
        loop = [loop, loop]
    assert read_checkpoint(written(tmp_path / 'x.pth', saved({'optimizer': loop})))['optimizer']


@pytest.mark.parametrize('numpy', [1, 2])
@pytest.mark.parametrize('write', [saved, legacy])
def test_checkpoints_of_mmengine_load_whole(tmp_path: Path, write: Callable[[object], bytes], numpy: int) -> None:
    state, file = training_state(), write(training_state())
    if numpy == 1 and write is saved:
        file = rebuilt(file, lambda data: data.replace(b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n'))
    loaded = read_checkpoint(written(tmp_path / 'x.pth', file))
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert type(history) is HistoryBuffer
    assert history.statistics('mean', 2) == 0.1875
    assert history.data[0].tolist() == [0.5, 0.25, 0.125]
    palette = loaded['meta']['dataset_meta']['palette']
    assert np.array_equal(palette, state['meta']['dataset_meta']['palette'])
    assert loaded['message_hub']['runtime_info'] == {'epoch': 1, 'iter': 2, 'best_score': 0.5, 'last_ckpt': 'x.pth'}
    assert loaded['message_hub']['resumed_keys'] == {'train/loss': True, 'epoch': True}
    assert loaded['meta'].keys() == {'epoch', 'iter', 'seed', 'dataset_meta'}
    reach = Call(getattr, HistoryBuffer, '__init__')  # as histories name their statistics: a way to any function
    assert read_checkpoint(written(tmp_path / 'y.pth', saved({'x': reach}))) == {'x': None}
    assert b'deformable_vit' not in saved(loaded)  # so that it loads without this package when it is saved again
    assert b'deformable_vit' not in pickle.dumps(copy.deepcopy(loaded))


def test_training_resumes_from_a_checkpoint_of_mmengine(tmp_path: Path) -> None:
    runner(tmp_path / 'a').train()
    runner(tmp_path / 'b', epochs=2).train()
    resumed = toy(str(tmp_path / 'a' / 'epoch_1.pth'), resume=True, epochs=2)
    resumed.train()
    assert resumed.iter == 4
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 4
    for path in ('epoch_1', 'epoch_2'):
        first, second = (read_checkpoint(tmp_path / name / f'{path}.pth')['state_dict'] for name in ('a', 'b'))
        assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize('key', ['model', 'state_dict', None])
def test_state_dicts_are_found_under_every_usual_key(tmp_path: Path, key: str | None) -> None:
    """Also for mmengine; names of a distributed model lose their prefix."""
    content = {'weight': torch.ones(1, 2), 'bias': torch.ones(1)}
    path = written(tmp_path / 'x.pth', saved({key: content, 'epoch': 3} if key else content))
    layer = nn.Linear(2, 1)
    load_checkpoint(layer, path)
    assert layer.weight.eq(1).all()
    assert read_state_dict(path).keys() == content.keys()
    distributed = written(tmp_path / 'y.pth', saved({f'module.{k}': v for k, v in content.items()}))
    assert read_state_dict(distributed).keys() == content.keys()
    masked = {'state_dict': {'a.attn_mask': torch.tensor([0.0, float('-inf')])}}
    assert read_state_dict(written(tmp_path / 'z.pth', saved(masked)))['a.attn_mask'][1] == float('-inf')
    with pytest.raises(CheckpointError, match='numbers.pth has no weights'):
        read_state_dict(written(tmp_path / 'numbers.pth', saved({'epoch': 3})))


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    """In weights, in the optimizer's state and in the pickle each one; elsewhere it is found or changes nothing."""
    state = training_state()
    state['state_dict']['weight'].fill_(1.5)
    state['optimizer']['state'][0]['exp_avg'].fill_(2.5)
    file = saved(state)
    places = {'weights': b'\0\0\xc0\x3f' * 6, 'optimizer': b'\0\0\x20\x40' * 6, 'pickle': b'state_dict'}
    for place, content in places.items():
        flipped = bytearray(file)
        flipped[file.index(content) + 5] ^= 1
        with pytest.raises(CheckpointError, match=r'x.pth is damaged: the checksum of archive/data(/\d|.pkl) differs'):
            read_checkpoint(written(tmp_path / 'x.pth', bytes(flipped)))
        if place != 'pickle':
            torch.load(tmp_path / 'x.pth', weights_only=False)  # without a word
    random, found = np.random.default_rng(0), 0
    expected = saved(read_checkpoint(written(tmp_path / 'x.pth', file)))
    for position in random.integers(len(file) * 8, size=150):
        flipped = bytearray(file)
        flipped[position // 8] ^= 1 << (position % 8)
        try:
            loaded = read_checkpoint(written(tmp_path / 'x.pth', bytes(flipped)))
        except CheckpointError:
            found += 1
        else:
            assert saved(loaded) == expected
    assert found > 50  # the rest is padding


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    for file in (saved(training_state()), legacy(training_state())):
        for length in [0, 1, len(file) // 2, len(file) - 1, *np.random.default_rng(0).integers(len(file), size=20)]:
            with pytest.raises(CheckpointError, match='x.pth'):
                read_checkpoint(written(tmp_path / 'x.pth', file[:length]))


def test_files_without_checksums_load_with_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    contents = [saved({'x': torch.ones(1)}), legacy({'x': torch.ones(1)})]
    torch.serialization.set_crc32_options(before)
    for name, content in zip('xy', contents, strict=True):
        assert read_checkpoint(written(tmp_path / name, content))['x'] == 1
        assert f'{name} has no checksums, so damage goes unnoticed' in ''.join(capfd.readouterr())


def test_files_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match='missing.pth does not exist'):
        read_checkpoint(tmp_path / 'missing.pth')
    with pytest.raises(CheckpointError, match='cannot be read: IsADirectoryError'):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r'a\\nb\\x1b\[2J\.pth') as caught:
        read_checkpoint(tmp_path / 'a\nb\x1b[2J.pth')
    assert str(caught.value).isprintable()

    def fail(*_args: object, **_kwargs: object) -> None:
        raise PermissionError('Permission denied')  # root reads every file

    path = written(tmp_path / 'secret.pth', saved({'x': torch.zeros(1)}))
    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(CheckpointError, match='secret.pth cannot be read: PermissionError: Permission denied'):
        read_checkpoint(path)


def test_downloads_are_cached_and_a_damaged_one_says_what_to_remove(tmp_path: Path, served: list[str]) -> None:
    written(tmp_path / 'x.pth', saved({'state_dict': {'x': torch.ones(2)}}))
    for _ in range(2):
        assert torch.equal(read_state_dict('https://example.org/x.pth')['x'], torch.ones(2))
    assert served == ['https://example.org/x.pth']
    weights = {'state_dict': {'backbone.x': torch.ones(2), 'head.x': torch.ones(2)}}
    written(tmp_path / 'x.pth', saved(weights))
    assert read_checkpoint('mmcls://resnet50').keys() == {'x'}
    assert read_state_dict('torchvision://resnet50').keys() == {'backbone.x', 'head.x'}
    write_hostile('empty', tmp_path / 'cache' / 'hub' / 'checkpoints' / 'x.pth')
    with pytest.raises(CheckpointError, match=r'x.pth is damaged.*from https://example.org/x.pth again, remove it'):
        read_checkpoint('https://example.org/x.pth')
    with pytest.raises(CheckpointError, match='open-mmlab://no_such_model has no known URL'):
        read_checkpoint('open-mmlab://no_such_model')


def test_links_of_clouds_without_a_file_name_are_cached_apart(tmp_path: Path, served: list[str]) -> None:
    links = [weights.source for weights in official_weights().values() if not weights.source.endswith('.pth')][:9]
    for number, link in enumerate(links):
        written(tmp_path / 'x.pth', saved({'x': torch.tensor(number)}))
        read_checkpoint(link)
    assert [int(read_checkpoint(link)['x']) for link in links] == list(range(9))
    assert served == links
