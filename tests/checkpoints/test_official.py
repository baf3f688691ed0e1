"""Official weights by name: the table, where files are looked for, and what does not get a name."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from file_server import FileServer
from golden import official_state_dict
from hostile_files import saved
from mmengine.runner import CheckpointLoader
from running import ROOT

from deformable_vit import PVTv2
from deformable_vit.checkpoints import (
    OfficialWeights,
    find_official,
    load_backbone_weights,
    official_file,
    official_weights,
    read_state_dict,
    recorded_size,
)
from deformable_vit.checkpoints.official import SCHEME, load_from_official
from deformable_vit.errors import CheckpointError

Table = dict[str, OfficialWeights]


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob('*') if path.suffix in ('.pth', '.part', '.json')]


@pytest.fixture(scope='module')
def classifier() -> dict[str, torch.Tensor]:
    return official_state_dict('pvtv2-b0_in1k')


@pytest.fixture
def served(server: FileServer) -> Callable[..., Table]:
    """Serve a state dict as the weights of a name, in the manner that the path names."""

    def serve(name: str, state_dict: dict[str, torch.Tensor], path: str = '/file') -> Table:
        server.content = saved({'model': state_dict})
        return {name: replace(find_official(name), source=server.url(path))}

    return serve


def test_the_table_has_each_link_of_the_metafiles_once_by_name() -> None:
    table = official_weights()
    models = [
        m for path in (ROOT / 'configs').glob('*/metafile.yml') for m in yaml.safe_load(path.read_text())['Models']
    ]
    assert sorted(w.source for w in table.values()) == sorted(m['Weights'] for m in models if 'Weights' in m)
    assert all(weights.config_file.is_file() and weights.results for weights in table.values())
    assert {weights.repository for weights in table.values()} == {
        'https://github.com/whai362/PVT',
        'https://github.com/CASIA-IVA-Lab/DPT',
        'https://github.com/LeapLabTHU/DAT',
    }
    found = table['mask-rcnn_dat-t-pp_fpn_32xb2-ms-crop-3x_coco']
    assert (found.backbone, found.arch, found.data) == ('DAT', 'tiny++', 'COCO')
    assert found.results == {'box AP': 50.5, 'mask AP': 45.1}
    assert table['dat-base-pp_in1k-384px'].config == 'dat/dat-base-pp_8xb24_in1k-384px.py'
    assert table['pvtv2-b2-li_in1k'].arch == 'b2-li'


def test_an_unknown_name_has_the_closest_ones() -> None:
    with pytest.raises(CheckpointError, match='dat-tinny_in1k; did you mean dat-tiny_in1k, '):
        find_official('dat-tinny_in1k')
    with pytest.raises(CheckpointError, match='did you mean dat-tiny_in1k'):
        read_state_dict('official://dat-tiny_8xb128_in1k')


def test_a_download_is_recorded_and_found_again(
    server: FileServer, served: Callable[..., Table], classifier: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    table = served('pvtv2-b0_in1k', classifier, '/redirect')
    path = official_file('official://pvtv2-b0_in1k', table)
    assert path == tmp_path / 'cache' / 'hub' / 'checkpoints' / 'pvtv2-b0_in1k.pth'
    assert json.loads(path.with_suffix('.json').read_text()) == dict(
        source=server.url('/redirect'),
        bytes=len(server.content),
        sha256=hashlib.sha256(server.content).hexdigest(),
    )
    assert recorded_size(path) == path.stat().st_size
    assert official_file('official://pvtv2-b0_in1k', table) == path
    assert len(server.asked) == 2  # and the redirection
    Path('checkpoints').mkdir()
    local = path.rename(Path('checkpoints', path.name))
    assert official_file('official://pvtv2-b0_in1k', table) == local
    assert len(server.asked) == 2


def test_a_classifier_has_the_names_of_its_config_and_loads_into_a_backbone(
    served: Callable[..., Table], classifier: dict[str, torch.Tensor]
) -> None:
    table = served('pvtv2-b0_in1k', classifier)

    def load_from_test(filename: str, map_location: str | None = None) -> dict:
        return load_from_official(filename, map_location, table)

    CheckpointLoader.register_scheme(SCHEME, load_from_test, force=True)
    try:
        loaded = read_state_dict('official://pvtv2-b0_in1k')
    finally:
        CheckpointLoader.register_scheme(SCHEME, load_from_official, force=True)
    assert torch.equal(loaded['head.fc.weight'], classifier['head.weight'])
    assert torch.equal(loaded['backbone.stages.0.norm.weight'], classifier['norm1.weight'])
    backbone = PVTv2('b0')
    load_backbone_weights(backbone, 'official://pvtv2-b0_in1k')  # from torch hub's directory
    assert torch.equal(backbone.state_dict()['stages.3.norm.bias'], classifier['norm4.bias'])


def test_a_converted_file_in_checkpoints_loads_too(
    served: Callable[..., Table], classifier: dict[str, torch.Tensor]
) -> None:
    table = served('pvtv2-b0_in1k', classifier)
    converted = load_from_official('official://pvtv2-b0_in1k', table=table)['state_dict']
    Path('checkpoints').mkdir()
    torch.save(converted, 'checkpoints/pvtv2-b0_in1k.pth')
    again = load_from_official('official://pvtv2-b0_in1k', table=table)['state_dict']
    assert all(torch.equal(again[name], value) for name, value in converted.items())


def test_a_file_of_another_model_gets_no_name(
    served: Callable[..., Table], classifier: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    detector = {f'backbone.{name}': value for name, value in classifier.items()}
    detector |= {'neck.weight': torch.zeros(1)}
    for name, content, message in (
        ('pvtv2-b1_in1k', classifier, 'is of another model than pvtv2-b1_in1k: .* mismatched'),
        ('pvt-tiny_in1k', classifier, 'is of another model than pvt-tiny_in1k: .* missing'),
        ('pvtv2-b0_in1k', detector, 'not an official PVT, DPT or DAT classifier'),
        ('retinanet_pvtv2-b0_fpn_1x_coco', classifier, 'is of another model than retinanet_pvtv2-b0_fpn_1x_coco'),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            official_file(name, served(name, content))
        assert 'save http://127.0.0.1:' in str(caught.value)
        assert str(find_official(name).repository) in str(caught.value)
        assert not files(tmp_path)
    assert official_file('retinanet_pvtv2-b0_fpn_1x_coco', served('retinanet_pvtv2-b0_fpn_1x_coco', detector)).is_file()


def test_a_truncated_file_on_the_server_gets_no_name(
    server: FileServer, served: Callable[..., Table], classifier: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    table = served('pvtv2-b0_in1k', classifier)
    server.content = server.content[: len(server.content) // 2]
    with pytest.raises(CheckpointError, match='pvtv2-b0_in1k: .* is damaged or not a checkpoint'):
        official_file('pvtv2-b0_in1k', table)
    assert not files(tmp_path)


@pytest.mark.slow
def test_each_published_checkpoint_passes_the_check_of_its_name(tmp_path: Path) -> None:
    names = {'dat-tiny': 'dat-tiny', 'datpp-tiny': 'dat-tiny-pp', 'dpt-tiny': 'dpt-tiny', 'pvt-tiny': 'pvt-tiny'}
    for published, name in names.items():
        torch.save(official_state_dict(f'{published}_in1k'), tmp_path / 'x.pth')
        find_official(f'{name}_in1k').check(tmp_path / 'x.pth')
