"""The argument ``pretrained`` loads at once, and the weights survive the initialization of a whole model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModule, Sequential
from mmengine.registry import MODELS
from torch import nn

from deformable_vit import DAT, DPT, PVT, PVTv2
from deformable_vit.backbones import PyramidBackbone
from deformable_vit.backbones.pretrained import find_pretrained
from deformable_vit.errors import CheckpointError

CLASSES = [DAT, DPT, PVT, PVTv2]


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))


def equal(model: nn.Module, state_dict: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state_dict[name]) for name, value in model.state_dict().items())


def test_a_file_loads_at_once_and_survives_init_weights(small_backbone: Callable[..., PyramidBackbone]) -> None:
    saved = small_backbone().state_dict()
    torch.save(saved, 'x.pth')
    backbone = small_backbone(pretrained=Path('x.pth'))
    assert equal(backbone, saved)
    assert not equal(small_backbone(pretrained=None), saved)
    fill = dict(type='Constant', layer=['Conv2d', 'Linear', 'LayerNorm'], val=7.0)
    model = Sequential(backbone, nn.Conv2d(3, 3, 1), init_cfg=fill)
    model.init_weights()  # as mmengine's Runner does
    assert model[1].weight.eq(7).all()
    assert equal(backbone, saved)


@pytest.mark.parametrize('build', CLASSES)
def test_true_takes_the_official_weights_of_the_arch(build: type[PyramidBackbone]) -> None:
    """From ``checkpoints`` in the working directory, where an official file may lie under its name."""
    name = build.pretrained_checkpoint('b2-li' if build is PVTv2 else 'small', True)
    assert name == dict(DAT='official://dat-small_in1k', PVTv2='official://pvtv2-b2-li_in1k').get(
        build.__name__, f'official://{build.__name__.lower()}-small_in1k'
    )


@pytest.mark.slow
@pytest.mark.parametrize('build', [partial(DAT, 'tiny'), partial(PVTv2, 'b0')])
def test_names_load_from_checkpoints(build: Callable[..., PyramidBackbone]) -> None:
    saved = build().state_dict()
    name = build.func.pretrained_checkpoint(*build.args, True).removeprefix('official://')
    Path('checkpoints').mkdir()
    torch.save(saved, f'checkpoints/{name}.pth')
    for pretrained in (True, name, f'official://{name}'):
        assert equal(build(pretrained=pretrained), saved)
    config = dict(type=build.func.__name__, arch=build.args[0], pretrained=True)
    assert equal(MODELS.build(config), saved)


def test_plus_signs_are_part_of_the_name() -> None:
    assert find_pretrained('DAT', 'dat', 'base++', True) == 'official://dat-base-pp_in1k'
    assert find_pretrained('DAT', 'dat', 'base', 'dat-base_in1k-384px') == 'official://dat-base_in1k-384px'


@pytest.mark.parametrize('url', ['https://example.org/x.pth', 'official://dat-base_in1k', 'open-mmlab://x'])
def test_urls_stay(url: str) -> None:
    assert find_pretrained('DAT', 'dat', 'base', url) == url


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='test', pretrained=True), "DAT: there are official weights of .*tiny, not of arch='test'"),
        (dict(arch=dict(like='tiny'), pretrained=True), "not of arch={'like': 'tiny'}"),
        (dict(arch='test', pretrained='x.pth'), "DAT: pretrained='x.pth' does not exist"),
        (dict(arch='test', pretrained='dat-tinny_in1k'), 'did you mean dat-tiny_in1k'),
        (dict(arch='tiny', pretrained=True, init_cfg=dict(type='Pretrained', checkpoint='x')), 'set one'),
    ],
)
def test_mistakes_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DAT(**kwargs)


def test_a_module_without_it_has_none() -> None:
    assert isinstance(DAT('test'), BaseModule)
    assert DAT('test').init_cfg is None


def test_a_failed_download_says_how_to_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('deformable_vit.checkpoints.official.download', _no_network)
    with pytest.raises(CheckpointError, match=r'dat-tiny_in1k: no network.*; pretrained=False'):
        DAT('tiny', pretrained=True)
    backbone = DAT('tiny', init_cfg=dict(type='Pretrained', checkpoint='official://dat-tiny_in1k'))
    with pytest.raises(CheckpointError, match=r'; init_cfg=None'):
        backbone.init_weights()


def _no_network(*_: Any) -> None:
    raise CheckpointError('no network')
