"""tools/download_weights.py: names, the list, and whole files that fit the model of their config."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import download_weights
import pytest
import torch
from file_server import FileServer
from golden import official_state_dict
from hostile_files import saved
from official_names import official_names

from deformable_vit.apis.config import load_config
from deformable_vit.apis.inference import load_model
from deformable_vit.checkpoints import find_official, official_weights, recorded_size

Call = Callable[..., tuple[int, str, str]]


def test_the_list_has_each_name_with_its_accuracy_and_source(call: Call, tmp_path: Path) -> None:
    status, out, _ = call('download_weights.py', '--list')
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ['name', *official_weights()]
    assert out.splitlines()[0].index('source') < 120
    (tmp_path / 'dat-tiny_in1k.pth').write_bytes(bytes(3 << 20))
    _, out, _ = call('download_weights.py', '--list', 'dat-t*_in1k', 'dat-tiny_in1k', '--out', tmp_path)
    rows = [re.split(' {2,}', line) for line in out.splitlines()[1:]]
    assert [row[0] for row in rows] == ['dat-tiny-pp_in1k', 'dat-tiny_in1k']
    assert rows[1][-3:] == ['top-1 82.0', '3.0 MiB', find_official('dat-tiny_in1k').source]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['dat-tny_in1k'], 'no official weights dat-tny_in1k; did you mean dat-tiny_in1k'),
        (['resnet*'], r'no official weights resnet\*; tools/download_weights.py --list'),
        ([], 'no NAME is given'),
    ],
)
def test_an_unknown_name_is_an_error(call: Call, args: list[str], message: str) -> None:
    status, out, error = call('download_weights.py', *args)
    assert (status, out) == (2, '')
    assert re.search(message, error.splitlines()[-1])


def test_a_classifier_is_downloaded_once_and_damage_is_found(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    server.content = saved(official_state_dict('pvtv2-b0_in1k'))
    weights = replace(find_official('pvtv2-b0_in1k'), source=server.url('/file'))
    path = tmp_path / 'pvtv2-b0_in1k.pth'
    assert download_weights.download([weights], tmp_path)
    assert recorded_size(path) == path.stat().st_size == len(server.content)
    assert download_weights.download([weights], tmp_path)
    assert len(server.asked) == 1
    assert 'exists, whole' in capsys.readouterr().out.splitlines()[-1]
    path.write_bytes(server.content[:-9])
    assert not download_weights.download([weights], tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: pvtv2-b0_in1k: ')
    assert 'move the file away' in line
    assert path.stat().st_size == len(server.content) - 9


def test_each_failure_is_a_line_and_the_rest_is_downloaded(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    server.content = saved(official_state_dict('pvtv2-b0_in1k'))
    names = {'pvtv2-b1_in1k': '/file', 'pvtv2-b2_in1k': '/gone', 'dat-tiny_in1k': '/page', 'pvtv2-b0_in1k': '/file'}
    chosen = [replace(find_official(name), source=server.url(path)) for name, path in names.items()]
    assert not download_weights.download(chosen, tmp_path)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert [line.split(':')[1].split()[-1] for line in errors] == ['pvtv2-b1_in1k', 'pvtv2-b2_in1k', 'dat-tiny_in1k']
    assert ['another model' in errors[0], '404' in errors[1], 'web page' in errors[2]] == [True] * 3
    assert [path.name for path in tmp_path.glob('[!.]*.pth*')] == ['pvtv2-b0_in1k.pth']


@pytest.mark.slow
def test_a_detector_is_compared_with_the_model_of_its_config(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = replace(find_official('retinanet_pvtv2-b0_fpn_1x_coco'), source=server.url('/file'))
    model = load_model(load_config(str(weights.config_file), {})).state_dict()
    official = official_names(model, 'pvtv2')
    server.content = saved({'state_dict': {k: v for k, v in official.items() if 'retina_reg' not in k}})
    assert not download_weights.download([weights], tmp_path)
    assert 'retina_reg' in capsys.readouterr().err
    server.content = saved({'state_dict': official | {'surplus': torch.zeros(1)}, 'meta': {}})
    assert download_weights.download([weights], tmp_path)
    assert (tmp_path / 'retinanet_pvtv2-b0_fpn_1x_coco.pth').is_file()
