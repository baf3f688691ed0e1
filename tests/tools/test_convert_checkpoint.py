"""tools/convert_checkpoint.py: from an authors' file to a checkpoint of an ImageNet config."""

import importlib
from pathlib import Path

import pytest
import torch
from golden import author_state_dict, figures, picture, probe
from mmengine.config import Config
from mmengine.registry import init_default_scope
from running import ROOT


def classifier(path: Path) -> torch.nn.Module:
    config = Config.fromfile(path)
    init_default_scope('mmpretrain')
    registry = importlib.import_module('mmpretrain.registry').MODELS
    return registry.build(dict(config.model, data_preprocessor=config.data_preprocessor)).eval()


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('pvt-tiny_in1k', 'pvt/pvt-tiny_8xb128_in1k.py'),
        ('pvtv2-b0_in1k', 'pvtv2/pvtv2-b0_8xb128_in1k.py'),
        ('dpt-tiny_in1k', 'dpt/dpt-tiny_8xb128_in1k.py'),
        ('dat-tiny_in1k', 'dat/dat-tiny_8xb128_in1k.py'),
        ('datpp-tiny_in1k', 'dat/dat-tiny-pp_8xb128_in1k.py'),
    ],
)
def test_converted_classifier_computes_the_authors_logits(tool, tmp_path: Path, name: str, config: str) -> None:
    torch.save({'model': author_state_dict(name)}, tmp_path / 'theirs.pth')
    tool('convert_checkpoint.py', 'theirs.pth', 'out/ours.pth')
    state_dict = torch.load(tmp_path / 'out' / 'ours.pth', weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state_dict.values())

    model = classifier(ROOT / 'configs' / config)
    model.load_state_dict(state_dict, strict=True)
    (case,) = figures(name)['cases']
    with torch.no_grad():
        logits = model(picture(case['input']))
    expected = torch.tensor(case['outputs']['logits']['probe'])
    torch.testing.assert_close(probe('logits', logits), expected, atol=1e-4, rtol=1e-4)


def test_errors(tool, tmp_path: Path) -> None:
    torch.save({'conv1.weight': torch.zeros(1)}, tmp_path / 'resnet.pth')
    (tmp_path / 'mine.pth').write_text('precious')
    for args, words in (
        (('gone.pth', 'x.pth'), 'gone.pth does not exist'),
        (('resnet.pth', 'x.pth'), 'not a classifier of the PVT, DPT or DAT authors'),
        (('resnet.pth', 'mine.pth'), 'mine.pth exists already'),
    ):
        done = tool('convert_checkpoint.py', *args, ok=False)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith('convert_checkpoint.py: error: ')
        assert words in done.stderr
        assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'x.pth').exists()
    assert (tmp_path / 'mine.pth').read_text() == 'precious'
