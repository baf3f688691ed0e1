"""tools/convert_checkpoint.py: from an official classifier to a checkpoint of an ImageNet config."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest
import torch
from golden import image, official_state_dict, probe, reference_values
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from running import ROOT

from deformable_vit.checkpoints import CheckpointError, load_backbone_weights, read_state_dict, write_safetensors

TOOL = ROOT / 'tools' / 'convert_checkpoint.py'


def convert(monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    """Run the tool in this process."""
    monkeypatch.setattr('sys.argv', [str(TOOL), *map(str, args)])
    runpy.run_path(str(TOOL), run_name='__main__')


def classifier(path: Path) -> torch.nn.Module:
    config = Config.fromfile(path)
    init_default_scope('mmpretrain')
    registry = importlib.import_module('mmpretrain.registry').MODELS
    return registry.build(dict(config.model, data_preprocessor=config.data_preprocessor)).eval()


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('pvtv2-b0_in1k', 'pvtv2/pvtv2-b0_8xb128_in1k.py'),
        pytest.param('dpt-tiny_in1k', 'dpt/dpt-tiny_8xb128_in1k.py', marks=pytest.mark.slow),
        pytest.param('pvt-tiny_in1k', 'pvt/pvt-tiny_8xb128_in1k.py', marks=pytest.mark.slow),
        pytest.param('dat-tiny_in1k', 'dat/dat-tiny_8xb128_in1k.py', marks=pytest.mark.slow),
        pytest.param('datpp-tiny_in1k', 'dat/dat-tiny-pp_8xb128_in1k.py', marks=pytest.mark.slow),
    ],
)
def test_converted_classifiers_compute_the_official_logits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, name: str, config: str
) -> None:
    torch.save({'model': official_state_dict(name)}, tmp_path / 'official.pth')
    converted = tmp_path / 'out' / 'converted.pth'
    convert(monkeypatch, tmp_path / 'official.pth', converted)
    state_dict = torch.load(converted, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state_dict.values())
    assert capsys.readouterr().out.splitlines()[-1].startswith(f'{converted}: {len(state_dict)} tensors, ')
    assert list(converted.parent.iterdir()) == [converted]

    model = classifier(ROOT / 'configs' / config)
    model.load_state_dict(state_dict, strict=True)
    (case,) = reference_values(name)['cases']
    with torch.no_grad():
        logits = model(image(case['input']))
    expected = torch.tensor(case['outputs']['logits']['probe'])
    torch.testing.assert_close(probe('logits', logits), expected, atol=1e-4, rtol=1e-4)


def test_safetensors_are_written_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip('safetensors')
    official = official_state_dict('pvtv2-b0_in1k')
    torch.save({'model': official}, tmp_path / 'official.pth')
    convert(monkeypatch, tmp_path / 'official.pth', tmp_path / 'x.pth')
    convert(monkeypatch, tmp_path / 'official.pth', tmp_path / 'x.safetensors')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['official.pth', 'x.pth', 'x.safetensors']
    expected, found = torch.load(tmp_path / 'x.pth'), read_state_dict(str(tmp_path / 'x.safetensors'))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    backbone = MODELS.build(dict(type='PVTv2', arch='b0'))
    load_backbone_weights(backbone, str(tmp_path / 'x.safetensors'))
    assert torch.equal(backbone.state_dict()['stages.0.norm.weight'], expected['backbone.stages.0.norm.weight'])
    whole = (tmp_path / 'x.safetensors').read_bytes()
    for name, data, reason in [
        ('half', whole[: len(whole) // 2], 'half.safetensors is damaged'),
        ('empty', b'', 'empty.safetensors is damaged'),
        ('huge', b'\xff' * 8 + whole[8:], 'huge.safetensors is damaged'),
        ('nan', None, 'x has 1 of 1 values that are NaN'),
    ]:
        path = tmp_path / f'{name}.safetensors'
        path.write_bytes(data) if data is not None else write_safetensors({'x': torch.tensor([float('nan')])}, path)
        with pytest.raises(CheckpointError, match=reason):
            read_state_dict(str(path))


def test_without_safetensors_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    for module in ('safetensors', 'safetensors.torch'):
        monkeypatch.setitem(sys.modules, module, None)
    torch.save({'model': official_state_dict('pvtv2-b0_in1k')}, tmp_path / 'official.pth')
    with pytest.raises(SystemExit):
        convert(monkeypatch, tmp_path / 'official.pth', tmp_path / 'x.safetensors')
    line = capsys.readouterr().err.splitlines()[-1]
    assert "needs the package safetensors, which is not installed: pip install 'deformable-vit[safetensors]'" in line
    (tmp_path / 'y.safetensors').write_bytes(b'')
    with pytest.raises(CheckpointError, match='y.safetensors needs the package safetensors'):
        read_state_dict(str(tmp_path / 'y.safetensors'))


@pytest.mark.slow
def test_command_line(tool, tmp_path: Path) -> None:
    torch.save(official_state_dict('pvtv2-b0_in1k'), tmp_path / 'official.pth')
    done = tool('convert_checkpoint.py', 'official.pth', 'out/converted.pth')
    assert done.stdout.endswith('\nout/converted.pth: 178 tensors, 3.67 M values\n')
    assert (tmp_path / 'out' / 'converted.pth').is_file()


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('gone.pth', 'x.pth'), 'gone.pth does not exist'),
        (('resnet.pth', 'x.pth'), 'not an official PVT, DPT or DAT classifier; its names begin with conv1.weight'),
        (('resnet.pth', 'mine.pth'), 'mine.pth exists already'),
    ],
)
def test_errors_are_one_line_and_leave_files_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    args: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({'conv1.weight': torch.zeros(1)}, 'resnet.pth')
    Path('mine.pth').write_text('precious')
    with pytest.raises(SystemExit) as exit_:
        convert(monkeypatch, *args)
    assert exit_.value.code == 2
    error_output = capsys.readouterr().err
    last = error_output.splitlines()[-1]
    assert last.startswith('convert_checkpoint.py: error: ')
    assert message in last
    assert 'Traceback' not in error_output
    assert not Path('x.pth').exists()
    assert Path('mine.pth').read_text() == 'precious'
