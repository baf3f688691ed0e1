"""The Python snippets of README.md and docs/*.md run as they stand there."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image
from running import ROOT
from snippets import run, snippet, write_checkpoint

from deformable_vit import DAT

CLASSES = ('wheel', 'roof', 'window', 'decoration', 'tire')


@torch.no_grad()
def test_first_snippet_loads_weights_and_returns_feature_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = DAT('tiny').state_dict()
    monkeypatch.chdir(tmp_path)
    Path('checkpoints').mkdir()
    torch.save(weights, 'checkpoints/dat-tiny_in1k.pth')
    names = run(snippet('README.md', 'pretrained=True'))
    backbone, feature_maps = names['backbone'], names['feature_maps']
    assert all(torch.equal(value, weights[name]) for name, value in backbone.state_dict().items())
    assert [tuple(x.shape) for x in feature_maps] == [
        (1, c, 480 // s, 640 // s) for c, s in zip(backbone.out_channels, (4, 8, 16, 32), strict=True)
    ]


def test_config_example_trains_every_parameter(tmp_path: Path) -> None:
    """A parameter without gradient stops distributed training; the neck has to use every output."""
    (tmp_path / 'example.py').write_text(snippet('docs/own_configs.md', 'schedule_1x'))
    config = Config.fromfile(tmp_path / 'example.py')
    config.model.backbone.init_cfg = None
    backbone, neck = MODELS.build(config.model.backbone), MODELS.build(dict(config.model.neck, _scope_='mmdet'))
    assert backbone.out_channels == tuple(config.model.neck.in_channels)
    sum(out.square().mean() for out in neck(backbone(torch.randn(1, 3, 64, 64)))).backward()
    assert [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []

    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    for key in config.optim_wrapper.paramwise_cfg.custom_keys:
        assert any(key in name for name, _ in backbone.named_parameters()), key


def test_recording() -> None:
    names = run(snippet('docs/visualization.md', 'import record'))
    assert names['layer'].kind == 'deformable'
    assert (names['locations'].shape, names['attention'].shape) == ((6, 49, 2), (24, 1, 49))


def test_backend_snippet(capsys: pytest.CaptureFixture[str]) -> None:
    run(snippet('docs/performance.md', 'use_backend'))
    assert capsys.readouterr().out.startswith('reference of')


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['DetInferencer', 'MMSegInferencer', 'ImageClassificationInferencer'])
def test_inferencers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'docs').mkdir()
    Image.new('RGB', (120, 90), (90, 40, 20)).save(tmp_path / 'docs' / 'demo.jpg')
    text = snippet('docs/predictions.md', f'{kind}(')
    config, checkpoint = (
        re.findall(r"'(configs/\S+\.py)'", text)[0],
        re.findall(r"'(\S+\.pth|official://\S+)'", text)[0],
    )
    if checkpoint.startswith('official://'):
        checkpoint = f'checkpoints/{checkpoint.removeprefix("official://")}.pth'
    classes = ('ground', *CLASSES) if kind == 'MMSegInferencer' else CLASSES
    meta = dict(dataset_meta=dict(classes=classes, palette=[[40 * i, 0, 0] for i in range(len(classes))]))
    # A converted classifier has no names of classes; they are ImageNet's.
    write_checkpoint(config, Path(checkpoint), {} if kind == 'ImageClassificationInferencer' else meta)

    names = run(text)
    if kind == 'DetInferencer':
        assert set(names['found']) == {'bboxes', 'scores', 'labels', 'masks'}
        assert set(names['names']) <= set(CLASSES)
        assert Path('predicted/vis/demo.jpg').is_file()
    elif kind == 'MMSegInferencer':
        assert names['label_map'].shape == (90, 120)
        assert set(names['names']) <= set(classes)
        assert len(list(Path('predicted/vis').iterdir())) == 1
    else:
        assert names['result']['pred_class'] == names['classifier'].classes[names['result']['pred_label']]
        assert names['result']['pred_scores'].shape == (1000,)
