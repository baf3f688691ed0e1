"""JSON and figures of recorded layers, and the way from an image to the network's input and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from attention_page import move_offsets, points_layer
from matplotlib.collections import PathCollection
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from running import ROOT
from small_models import build_small

from deformable_vit.visualization import (
    Affine,
    AttentionLayer,
    PatchLayer,
    PointsLayer,
    Recording,
    View,
    draw,
    layer_title,
    record,
    to_json,
)
from deformable_vit.visualization.model_input import prepare

SIZE = (96, 160)


@pytest.fixture(params=['DAT', 'DAT++', 'DPT', 'PVTv2-li'])
def recording(request: pytest.FixtureRequest) -> Recording:
    result = record(move_offsets(build_small(request.param)), torch.randn(1, 3, *SIZE))
    result.image = np.zeros((*SIZE, 3), dtype=np.uint8)
    return result


def test_json_holds_the_recorded_layers(recording: Recording) -> None:
    query = (101, 37)
    recording.layers += [points_layer(True), points_layer(False)]
    found = json.loads(json.dumps(to_json(recording.size, recording.layers, query)))
    assert found['image'] == dict(width=160, height=96)
    for layer, entry in zip(recording.layers, found['layers'], strict=True):
        assert (entry['stage'], entry['block'], entry['kind']) == (layer.stage, layer.block, layer.kind)
        if isinstance(layer, PatchLayer):
            np.testing.assert_allclose(entry['boxes'], layer.boxes, atol=1e-3)
            np.testing.assert_allclose(entry['points'], layer.points, atol=1e-3)
            continue
        index = layer.query_index(*query)
        np.testing.assert_allclose(entry['query'], layer.query_position(index), atol=1e-3)
        locations, attention = np.array(entry['locations']), np.array(entry['attention'])
        np.testing.assert_allclose(attention.sum(1), 1, atol=1e-3)
        if isinstance(layer, PointsLayer):
            np.testing.assert_allclose(locations, layer.locations[index].reshape(4, 6, 2), atol=1e-3)
            assert ('label' in entry) == (not layer.is_encoder)
            continue
        keys = int(np.prod(entry['grid']))
        assert locations.shape == (entry['groups'], keys, 2)
        assert attention.shape == (entry['heads'], keys)
        assert isinstance(layer, AttentionLayer)
        own = layer.keys_of(index)
        np.testing.assert_allclose(locations, layer.locations[:, own], atol=1e-3)
        np.testing.assert_allclose(attention, layer.attention(index)[:, 0, own], atol=1e-6)
        if layer.spans is not None:  # windows of 7
            assert np.abs(locations[0] - entry['query']).max() <= 7 * max(layer.to_image.scale)


def test_figures_of_all_kinds_are_drawn(recording: Recording, tmp_path: Path) -> None:
    recording.layers += [points_layer(True), points_layer(False)]
    for i, layer in enumerate(recording.layers):
        figure = draw(recording, View(i, (50, 40), head=0, top=7), 'title')
        if layer.kind == 'deformable':
            assert isinstance(layer, AttentionLayer)
            star, circles = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
            strongest = np.argsort(layer.attention(layer.query_index(50, 40))[0, 0])[-7:]
            np.testing.assert_allclose(circles.get_offsets(), layer.locations[0, strongest], rtol=1e-5)
            np.testing.assert_allclose(star.get_offsets()[0], layer.query_position(layer.query_index(50, 40)))
    figure.savefig(tmp_path / 'figure.svg')
    assert (tmp_path / 'figure.svg').read_text().count('<path') > 5


def test_record_takes_one_image_and_names_layers_that_are_not_finite() -> None:
    model = build_small('DAT').eval()
    with pytest.raises(ValueError, match=r'one image .* got a tensor of shape \(2, 3, 64, 64\)'):
        record(model, torch.zeros(2, 3, 64, 64))
    with pytest.raises(ValueError, match='model.cfg'):
        record(model, 'image.jpg')
    torch.nn.init.constant_(model.stages[0].blocks[0].attn.qkv.weight, torch.nan)
    with pytest.raises(ValueError, match=r'layer stages.0.blocks.0.attn is not finite: q has NaN'):
        record(model, torch.randn(1, 3, *SIZE))


def test_token_at_its_center_depends_on_the_pixels_around_it() -> None:
    """The gradient of a token of the first patch embedding is symmetric about its center."""
    for name in ('DAT', 'DAT++', 'PVTv2'):
        model = build_small(name)
        x = torch.randn(1, 3, 64, 64, requires_grad=True)
        tokens, (_, w) = model.stages[0].patch_embed(x)
        (gradient,) = torch.autograd.grad(tokens[0, 7 * w + 5].square().sum(), x)
        y, x_ = np.nonzero(gradient[0].abs().sum(0).numpy())
        middle = ((x_.min() + x_.max()) / 2, (y.min() + y.max()) / 2)
        assert middle == tuple(Affine.of_patches(model.stages[0].patch_embed)(np.array([5, 7])))


@pytest.mark.slow
def test_pixels_of_the_network_input_map_to_the_image(tmp_path: Path) -> None:
    """The pixels of a ramp say where they come from; after resizing and cropping they are mapped there."""
    y, x = np.mgrid[:160, :250]
    image = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=128, edge='short'),
        dict(type='CenterCrop', crop_size=96),
        dict(type='PackInputs'),
    ]
    datasets = dict(type='ConcatDataset', datasets=[dict(type='A', pipeline=pipeline), dict(type='B', pipeline=[])])
    config = Config(dict(default_scope='mmpretrain', test_dataloader=dict(dataset=datasets)))
    found = prepare(config, image)
    values = found.data['inputs'][0].numpy()[:2]  # x and y where the pixel was
    h, w = found.size
    assert (h, w) == values.shape[1:]
    assert (h, w) == (96, 96)
    v, u = np.mgrid[:h, :w]
    mapped = found.to_image(np.stack([u, v], axis=-1).reshape(-1, 2)).T.reshape(2, h, w)
    assert np.abs(values - mapped).max() < 1.5
    assert np.abs((values - mapped).mean()) < 0.3
    np.testing.assert_array_equal(found.image, image[..., ::-1])
    gray = np.arange(64 * 80, dtype=np.uint16).reshape(64, 80).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / 'gray.png')
    pipeline[:] = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]
    np.testing.assert_array_equal(prepare(config, tmp_path / 'gray.png').image, np.stack([gray] * 3, axis=-1))


@pytest.mark.slow
def test_boxes_of_object_queries_are_the_predictions() -> None:
    config = Config.fromfile(ROOT / 'configs' / 'demo' / 'deformable-detr_dat_shapes.py')
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model).eval()
    model.init_weights()  # mmdet leaves the level embedding uninitialized before it
    model.cfg = config
    image = np.random.default_rng(0).integers(0, 255, (75, 160, 3)).astype(np.uint8)
    recording = record(model, image)
    layer = recording.layers[-1]
    assert isinstance(layer, PointsLayer)
    assert not layer.is_encoder
    found = recording.output.pred_instances
    # Without training, several queries may have nearly the same score.
    best = np.flatnonzero(np.isclose(np.asarray(layer.scores), float(found.scores.max()), rtol=1e-5))
    boxes = (np.asarray(layer.boxes)[best] + 0.5).clip(0, [160, 75] * 2)  # from border to border, as in mmdet
    differences = np.abs(boxes - found.bboxes[found.scores.argmax()].numpy()).max(axis=1)
    assert differences.min() < 0.01
    encoder = next(layer for layer in recording.layers if isinstance(layer, PointsLayer))
    assert encoder.is_encoder
    # Pixel centers of each level, which ends beyond the input where the stride does not divide its size.
    inputs = prepare(config, image)
    first = 0
    for stride, (h, w) in zip((8, 16, 32, 64), encoder.levels, strict=False):
        y, x = np.mgrid[:h, :w]
        expected = inputs.to_image(np.stack([x, y], axis=-1).reshape(-1, 2) * stride + (stride - 1) / 2)
        np.testing.assert_allclose(encoder.reference[first : first + h * w], expected, atol=0.02)
        first += h * w
    assert first == len(encoder.reference)


def test_titles_number_blocks_as_the_options_do(recording: Recording) -> None:
    assert [layer_title(points_layer(True)), layer_title(points_layer(False))] == [
        f'encoder layer {points_layer(True).block} (deformable detr)',
        f'decoder layer {points_layer(False).block} (deformable detr)',
    ]
    titles = [layer_title(layer) for layer in recording.layers]
    assert len(set(titles)) == len(titles)
    for layer, title in zip(recording.layers, titles, strict=True):
        block = f'block {layer.block}' if layer.block else 'patch embedding'
        assert title.startswith(f'stage {layer.stage}, {block} (')
