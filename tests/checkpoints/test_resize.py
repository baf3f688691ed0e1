"""Position embeddings and tables of relative position biases are resized to the sizes of the model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from golden import official_state_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from torch import nn

from deformable_vit.checkpoints.resize import resize_to_shapes

sizes = st.integers(1, 12)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what resizing and loading log."""
    said: list[str] = []
    for module in ('load', 'resize'):
        monkeypatch.setattr(f'deformable_vit.checkpoints.{module}.print_log', lambda text, *_: said.append(text))
    return said


def pretrained(path: Path, official: dict[str, torch.Tensor], **kwargs: Any) -> nn.Module:
    torch.save(official, path)
    backbone = MODELS.build(dict(kwargs, init_cfg=dict(type='Pretrained', checkpoint=str(path))))
    backbone.init_weights()
    return backbone


@pytest.mark.parametrize('flat', [False, True])
def test_bias_tables_are_resized_bicubically(tmp_path: Path, flat: bool, log: list[str]) -> None:
    """From windows of 7 and images of 224 to 12 and 384, as the official implementation fine-tunes DAT-B."""
    official = official_state_dict('dat-tiny_in1k')
    official_name = f'stages.2.attns.{"0.relative_position_bias_table" if flat else "1.rpe_table"}'
    old, new = (13, 23) if flat else (27, 47)
    square = official[official_name].T.reshape(12, old, old) if flat else official[official_name]
    kwargs = dict(type='DAT', arch='tiny', pretrain_img_size=384, window_size=12)
    own = pretrained(tmp_path / 'dat_t.pth', official, **kwargs).state_dict()
    name = f'stages.2.blocks.{"0.attn.relative_position_bias_table" if flat else "1.attn.rpe_table"}'
    assert f'{name}: resized relative position bias from {old} x {old} to {new} x {new}' in log
    table = own[name].T.reshape(12, new, new) if flat else own[name]
    expected = nn.functional.interpolate(square[:, None], size=(new, new), mode='bicubic')[:, 0]
    torch.testing.assert_close(table, expected)


def test_position_embeddings_are_resized_bilinearly(tmp_path: Path, log: list[str]) -> None:
    official = official_state_dict('pvt-tiny_in1k')
    # 384 / 4 = 96, and 12 x 12 + 1 for the class token in the last stage.
    plane = torch.stack(torch.meshgrid(torch.arange(56.0), torch.arange(56.0), indexing='ij')).flatten(1)
    official['pos_embed1'][0, :, :2] = plane.T
    backbone = pretrained(tmp_path / 'pvt_tiny.pth', official, type='PVT', arch='tiny', pretrain_img_size=384)
    assert 'stages.0.pos_embed: resized position embedding from 56 x 56 to 96 x 96' in log
    first, last = backbone.stages[0].pos_embed, backbone.stages[3].pos_embed
    assert first.shape == (1, 96 * 96, 64)
    assert last.shape == (1, 1 + 12 * 12, 512)
    # A plane stays a plane, with 56 / 96 of the slope.
    y = first[0, :, 0].reshape(96, 96)[4:-4]
    torch.testing.assert_close(y.diff(dim=0), torch.full_like(y.diff(dim=0), 56 / 96), atol=1e-4, rtol=0)
    assert torch.equal(last[:, 0], official['pos_embed4'][:, 0])
    assert last[:, 1:].mean().item() == pytest.approx(official['pos_embed4'][:, 1:].mean().item(), abs=0.01)


@settings(max_examples=30)
@given(sizes, sizes, sizes, sizes, st.booleans())
def test_constants_stay_constant_at_any_size(height: int, width: int, n: int, m: int, extra: bool) -> None:
    """Every table and embedding gets the size of the model, whatever its size was."""
    first = int(extra)
    state_dict = {
        'a.rpe_table': torch.full((2, height, width), 3.0),
        'b.rpb': torch.full((2, n, n), 4.0),
        'c.relative_position_bias_table': torch.full((n**2, 2), 5.0),
        'pos_embed': torch.full((1, first + n**2, 2), 6.0),
        'other.weight': torch.zeros(height, width),
    }
    shapes = {
        'a.rpe_table': (2, m, height),
        'b.rpb': (2, m, m),
        'c.relative_position_bias_table': (m**2, 2),
        'pos_embed': (1, first + m**2, 2),
        'other.weight': (width + 1, height),
    }
    resized = resize_to_shapes(state_dict, shapes, {'pos_embed': first})
    assert resized['other.weight'] is state_dict['other.weight']
    for (name, value), constant in zip(resized.items(), (3.0, 4.0, 5.0, 6.0), strict=False):
        assert tuple(value.shape) == shapes[name]
        torch.testing.assert_close(value, torch.full(shapes[name], constant))
    again = resize_to_shapes(resized, shapes, {'pos_embed': first})
    assert all(again[name] is resized[name] for name in shapes)


def test_tensors_of_another_model_stay() -> None:
    for name, shape, wanted in [
        ('a.rpe_table', (3, 5, 5), (2, 7, 7)),  # other heads
        ('b.relative_position_bias_table', (25, 3), (49, 2)),
        ('b.relative_position_bias_table', (24, 2), (49, 2)),  # not square
        ('pos_embed', (1, 17, 8), (1, 26, 4)),  # other channels
        ('pos_embed', (1, 16, 4), (1, 26, 4)),  # without a class token
    ]:
        value = torch.zeros(shape)
        assert resize_to_shapes({name: value}, {name: wanted}, {'pos_embed': 1})[name] is value
