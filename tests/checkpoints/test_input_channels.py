"""RGB weights load into backbones of other numbers of input channels; tests and resumed trainings refuse them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_state_dict
from small_models import SMALL_BACKBONES, build_small
from torch import Tensor, nn

from deformable_vit.checkpoints import convert_state_dict
from deformable_vit.engine.hooks.checkpoints import match
from deformable_vit.errors import UserError

FIRST = ('stages.0.patch_embed.proj.weight', 'stages.0.patch_embed.first.proj.weight')


def first_layer(backbone: nn.Module) -> Tensor:
    own = backbone.state_dict()
    return next(own[name] for name in FIRST if name in own)


@pytest.mark.parametrize('name', SMALL_BACKBONES)
@pytest.mark.parametrize('channels', [1, 2, 4, 6])
def test_rgb_weights_are_summed_or_repeated_and_scaled(tmp_path: Path, name: str, channels: int) -> None:
    """An image of equal channels keeps its feature maps if each of R, G and B occurs as often."""
    rgb = build_small(name).eval()
    torch.save(rgb.state_dict(), tmp_path / 'rgb.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'rgb.pth'))
    other = build_small(name, in_channels=channels, init_cfg=init_cfg).eval()
    other.init_weights()
    red, green, blue = first_layer(rgb).unbind(1)
    expected = {
        1: [red + green + blue],
        2: [red * 1.5, green * 1.5],
        4: [red * 0.75, green * 0.75, blue * 0.75, red * 0.75],
        6: [red / 2, green / 2, blue / 2] * 2,
    }
    torch.testing.assert_close(first_layer(other), torch.stack(expected[channels], 1))
    if channels in (1, 6):
        gray = torch.randn(1, 1, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            before, after = (m.double()(gray.expand(-1, n, -1, -1)) for m, n in ((rgb, 3), (other, channels)))
        for one, two in zip(before, after, strict=True):
            assert (one - two).norm() < 1e-4 * one.norm()  # the sum was rounded to float32


def test_only_rgb_weights_are_adapted() -> None:
    four = build_small('PVTv2', in_channels=4)
    again = build_small('PVTv2', in_channels=4)
    again.load_state_dict(four.state_dict())
    assert torch.equal(first_layer(again), first_layer(four))
    for source, target in ((4, 3), (4, 6), (1, 3)):
        with pytest.raises(RuntimeError, match='size mismatch for stages.0.patch_embed.proj.weight'):
            build_small('PVTv2', in_channels=target).load_state_dict(
                build_small('PVTv2', in_channels=source).state_dict()
            )


class Whole(nn.Module):
    def __init__(self, **backbone: Any) -> None:
        super().__init__()
        self.backbone = build_small('DAT++', **backbone)
        self.head = nn.Linear(2, 3)


def test_a_training_adapts_a_whole_model_and_a_test_refuses_it() -> None:
    rgb, other = Whole(), Whole(in_channels=5)
    checkpoint = dict(state_dict=rgb.state_dict())
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UserError, match=r'first\.proj\.weight: \(\d+, 3, 3, 3\) in the checkpoint, \(\d+, 5, 3, 3\)'):
        match(other, dict(checkpoint), 'rgb.pth', strict=True)
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())
    match(other, checkpoint, 'rgb.pth', strict=False)
    torch.testing.assert_close(first_layer(other.backbone)[:, 3], first_layer(rgb.backbone)[:, 0] * 3 / 5)
    assert torch.equal(other.head.weight, rgb.head.weight)


def test_what_differs_is_printed_once(capsys: pytest.CaptureFixture) -> None:
    """mmengine lists each name that differs; it finds none after the hook, and the values are those of the model."""
    model = Whole()
    kept = model.head.weight.clone()
    other = Whole()
    weights = other.state_dict() | {'head.weight': torch.zeros(9, 9), 'neck.weight': torch.zeros(1)}
    del weights['backbone.norms.0.weight']
    checkpoint = dict(state_dict=weights)
    match(model, checkpoint, 'x.pth', strict=False)
    capsys.readouterr()
    load_state_dict(model, checkpoint['state_dict'])
    assert capsys.readouterr().out == ''
    assert torch.equal(model.head.weight, kept)
    assert torch.equal(model.head.bias, other.head.bias)
    assert torch.equal(first_layer(model.backbone), first_layer(other.backbone))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = Whole(), Whole()


def test_a_detector_starts_student_and_teacher() -> None:
    """As mmdet's semi-supervised detectors load it; with both names, a checkpoint stays as it is."""
    pair, single = Pair(), Whole()
    match(pair, dict(state_dict=single.state_dict()), 'x.pth', strict=True)
    converted = convert_state_dict(pair, single.state_dict())
    assert converted.keys() == pair.state_dict().keys()
    assert torch.equal(converted['teacher.head.bias'], single.head.bias)
    assert convert_state_dict(pair, pair.state_dict()).keys() == pair.state_dict().keys()


@pytest.mark.parametrize('channels', [3, 4])
def test_the_log_says_what_is_adapted(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    said: list[str] = []
    module = 'deformable_vit.checkpoints.input_channels'
    monkeypatch.setattr(f'{module}.print_log', lambda text, _logger: said.append(text))
    MODELS.build(dict(SMALL_BACKBONES['PVT'], in_channels=channels)).load_state_dict(build_small('PVT').state_dict())
    assert [text.split(':')[0] for text in said] == [FIRST[0]] * (channels == 4)
    assert all('3/4' in text for text in said)
