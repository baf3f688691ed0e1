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

from deformable_vit.checkpoints import load_backbone_weights, read_state_dict
from deformable_vit.errors import CheckpointError

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


SLOW = [('dpt-tiny', 'dpt/dpt-tiny'), ('pvt-tiny', 'pvt/pvt-tiny'), ('dat-tiny', 'dat/dat-tiny')]
SLOW += [('datpp-tiny', 'dat/dat-tiny-pp')]


@pytest.mark.parametrize(
    ('name', 'config'),
    [('pvtv2-b0', 'pvtv2/pvtv2-b0'), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)],
)
def test_converted_classifiers_compute_the_official_logits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, name: str, config: str
) -> None:
    torch.save({'model': official_state_dict(f'{name}_in1k')}, tmp_path / 'official.pth')
    converted = tmp_path / 'out' / 'converted.pth'
    convert(monkeypatch, tmp_path / 'official.pth', converted)
    state_dict = torch.load(converted, weights_only=True)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f'{converted}: {len(state_dict)} tensors, ')
    assert list(converted.parent.iterdir()) == [converted]

    model = classifier(ROOT / 'configs' / f'{config}_8xb128_in1k.py')
    model.load_state_dict(state_dict, strict=True)
    (case,) = reference_values(f'{name}_in1k')['cases']
    with torch.no_grad():
        logits = model(image(case['input']))
    expected = torch.tensor(case['outputs']['logits']['probe'])
    torch.testing.assert_close(probe('logits', logits), expected, atol=1e-4, rtol=1e-4, check_dtype=False)


def test_safetensors_are_written_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save = pytest.importorskip('safetensors.torch').save
    torch.save({'model': official_state_dict('pvtv2-b0_in1k')}, tmp_path / 'official.pth')
    for name in ('x.pth', 'x.safetensors'):
        convert(monkeypatch, tmp_path / 'official.pth', tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['official.pth', 'x.pth', 'x.safetensors']
    expected, found = torch.load(tmp_path / 'x.pth'), read_state_dict(str(tmp_path / 'x.safetensors'))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    backbone = MODELS.build(dict(type='PVTv2', arch='b0'))
    load_backbone_weights(backbone, str(tmp_path / 'x.safetensors'))
    assert torch.equal(backbone.state_dict()['stages.0.norm.weight'], expected['backbone.stages.0.norm.weight'])
    whole = (tmp_path / 'x.safetensors').read_bytes()
    for data, reason in [
        (whole[: len(whole) // 2], 'is damaged or not a checkpoint: SafetensorError'),
        (b'', 'is damaged or not a checkpoint: SafetensorError'),
        (b'\xff' * 8 + whole[8:], 'is damaged or not a checkpoint: SafetensorError'),
        (save({'x': torch.tensor([float('nan')])}), 'x has 1 of 1 values that are NaN'),
    ]:
        (tmp_path / 'y.safetensors').write_bytes(data)
        with pytest.raises(CheckpointError, match=rf'y.safetensors .*{reason}'):
            read_state_dict(str(tmp_path / 'y.safetensors'))


def test_errors_are_one_line_and_leave_files_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ('safetensors', 'safetensors.torch'):
        monkeypatch.setitem(sys.modules, module, None)
    torch.save({'conv1.weight': torch.zeros(1)}, 'resnet.pth')
    torch.save(official_state_dict('pvtv2-b0_in1k'), 'official.pth')
    Path('mine.pth').write_text('precious')
    Path('y.safetensors').write_bytes(b'')
    before = sorted(tmp_path.iterdir())
    for source, target, message in (
        ('gone.pth', 'x.pth', 'gone.pth does not exist'),
        ('resnet.pth', 'x.pth', 'not an official PVT, DPT or DAT classifier; its names begin with conv1.weight'),
        ('resnet.pth', 'mine.pth', 'mine.pth exists already'),
        ('official.pth', 'x.safetensors', "needs the package: pip install 'deformable-vit[safetensors]'"),
        ('y.safetensors', 'x.pth', "y.safetensors needs the package safetensors: pip install 'deformable-vit[safet"),
    ):
        with pytest.raises(SystemExit) as exit_:
            convert(monkeypatch, source, target)
        assert exit_.value.code == 2
        error_output = capsys.readouterr().err
        assert error_output.splitlines()[-1].startswith('convert_checkpoint.py: error: ')
        assert message in error_output.splitlines()[-1]
        assert 'Traceback' not in error_output
    assert sorted(tmp_path.iterdir()) == before
    assert Path('mine.pth').read_text() == 'precious'
