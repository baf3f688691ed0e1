"""Recorded tensors, put in the place of sampling and attention, give the output of the forward pass."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_page import move_offsets
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from small_models import SMALL_BACKBONES, build_small
from torch import Tensor

from deformable_vit.backbones import dpt
from deformable_vit.backbones.dat import dat, local_attention
from deformable_vit.layers import attention
from deformable_vit.visualization import AttentionLayer, PatchLayer, record

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
# Odd sizes, so that rows and columns cannot be confused; patches are padded and windows are cut.
SIZE = (104, 140)


def weights_of(layer: AttentionLayer) -> Tensor:
    """Return the attention (1, heads, queries, keys) of all queries, with the class token's if there is one."""
    count = layer.query_grid[0] * layer.query_grid[1]
    return torch.from_numpy(layer.attention(np.arange(-layer.extra, count)))[None]


def pixel_reads(layer: AttentionLayer, x: Tensor) -> Tensor:
    """Read (1, C, H, W) at the locations of each group, given in pixels of the image: (1, keys, C)."""
    p = torch.from_numpy(layer.to_image.inverse(layer.locations)).float()
    extent = torch.tensor([x.shape[-1] - 1, x.shape[-2] - 1])
    grid = (p / extent * 2 - 1)[:, None]  # (groups, 1, keys, 2)
    reads = F.grid_sample(x[0].unflatten(0, (layer.groups, -1)), grid, align_corners=True)
    return reads.flatten(0, 1).flatten(1).T[None]


def replacements(layer: AttentionLayer) -> list[Any]:
    """Return patches of the ops of a layer that read at recorded locations and weigh with recorded attention."""

    def attend(_q: Tensor, _k: Tensor, v: Tensor, *_: Any) -> Tensor:
        return weights_of(layer) @ v

    def attend_map(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Tensor:
        return (weights_of(layer) @ v.flatten(2, 3)).unflatten(2, v.shape[2:4])

    def read(x: Tensor, _locations: Tensor) -> Tensor:
        return pixel_reads(layer, x)

    if layer.kind == 'deformable':
        return [
            mock.patch.object(dat, 'deformable_sampling', read),
            mock.patch.object(dat, 'deformable_attention', attend),
            mock.patch.object(dat, 'dense_attention', attend),
        ]
    if layer.spans is not None:
        name = 'neighborhood_attention' if layer.kind == 'neighborhood' else 'window_attention'
        return [mock.patch.object(local_attention, name, attend_map)]
    return [mock.patch.object(attention, 'dense_attention', attend)]


def inputs_of(model: torch.nn.Module, name: str, run: Callable[[], Any]) -> tuple[Any, Any]:
    """Return the inputs and the output of a module while a model runs."""
    kept: list[Any] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _m, args, out: kept.extend([args, out]))
    with torch.no_grad():
        run()
    handle.remove()
    return kept[0], kept[1]


@pytest.mark.parametrize('name', [*SMALL_BACKBONES, 'PVT with a class token'])
def test_recorded_attention_gives_the_output_of_the_block(name: str) -> None:
    options = dict(out_type='cls_token', out_indices=(3,)) if 'token' in name else {}
    model = move_offsets(build_small(name.removesuffix(' with a class token'), **options))
    x = torch.randn(1, 3, *SIZE)
    recording = record(model, x)
    layers = [layer for layer in recording.layers if isinstance(layer, AttentionLayer)]
    assert [layer.name for layer in layers] == [n for n, _ in model.named_modules() if n.endswith('.attn')]
    for layer in layers:
        block = layer.name.removesuffix('.attn')
        args, expected = inputs_of(model, block, lambda: model(x))
        for patch in (patches := replacements(layer)):
            patch.start()
        with torch.no_grad():
            found = model.get_submodule(block)(*args)
        for patch in patches:
            patch.stop()
        torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda m, layer=layer: f'{layer.name}: {m}')
        weights = weights_of(layer)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert layers[-1].extra == len(options) // 2
    assert len(layers[-1].reference) == weights.shape[-1] - layers[-1].extra


def test_recorded_points_give_the_tokens_of_deformable_patches() -> None:
    model, x = move_offsets(build_small('DPT')), torch.randn(1, 3, *SIZE)
    layers = [layer for layer in record(model, x).layers if isinstance(layer, PatchLayer)]
    assert [(layer.stage, layer.block) for layer in layers] == [(2, 0), (3, 0), (4, 0)]
    before = (4, 8, 16)
    for layer, stride in zip(layers, before, strict=True):
        (features,), (expected, _) = inputs_of(model, layer.name, lambda: model(x))
        points = (torch.from_numpy(layer.points) - (stride - 1) / 2) / stride  # pixels of the feature map

        def read(x: Tensor, boxes: Tensor, weight: Tensor, bias: Tensor, points: Tensor = points) -> Tensor:
            extent = torch.tensor([x.shape[-1] - 1, x.shape[-2] - 1])
            reads = F.grid_sample(x, (points / extent * 2 - 1)[None], align_corners=True)  # (1, C, patches, k * k)
            return (torch.einsum('bcnp,dcp->bdn', reads, weight.flatten(2)) + bias[:, None]).unflatten(
                2, boxes.shape[2:]
            )

        with mock.patch.object(dpt, 'deformable_patch_projection', read), torch.no_grad():
            found, _ = model.get_submodule(layer.name)(features)
        # In float32, pixels of the image are exact to 8e-6, and features change by up to 4 per pixel.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=5e-5)
        # The first and last points of a box are its corners.
        np.testing.assert_allclose(layer.points[:, [0, -1]].reshape(-1, 4), layer.boxes, atol=1e-3)


def test_recording_leaves_the_model_as_it_was() -> None:
    model, x = move_offsets(build_small('DAT++')), torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        expected = model(x)
    recorded = record(model, x)
    assert all(torch.equal(a, b) for a, b in zip(recorded.output, expected, strict=True))
    count = len(recorded.layers)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True))
    assert len(recorded.layers) == count  # no hook is left


def test_stage_without_stride_is_recorded_in_four_parts() -> None:
    model, x = move_offsets(build_small('DAT', output_stride=16)), torch.randn(1, 3, 128, 128)
    layers = [layer for layer in record(model, x).layers if layer.stage == 4]
    assert [layer.part for layer in layers] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    corners = [layer.query_position(0).tolist() for layer in layers]
    assert corners == [[15.5, 15.5], [31.5, 15.5], [15.5, 31.5], [31.5, 31.5]]


@pytest.mark.parametrize('boxes', [False, True])
def test_recorded_points_give_the_output_of_deformable_detr_attention(boxes: bool) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = torch.nn.Identity()
            self.attn = MultiScaleDeformableAttention(32, num_heads=4, num_levels=2, num_points=3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            self.backbone(x)
            return self.attn(**arguments)

    shapes = torch.tensor([(7, 9), (4, 5)])
    reference = torch.rand(1, 11, 2, 4 if boxes else 2)
    arguments = dict(
        query=torch.randn(1, 11, 32),
        value=torch.randn(1, 83, 32),
        query_pos=torch.randn(1, 11, 32),
        reference_points=reference,
        spatial_shapes=shapes,
        level_start_index=torch.tensor([0, 63]),
    )
    model = Model().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    recording = record(model, torch.zeros(1, 3, *SIZE))
    (layer,) = recording.layers
    value = model.attn.value_proj(arguments['value']).unflatten(-1, (4, 8))
    extents = torch.tensor([(9 * 16, 7 * 16), (5 * 32, 4 * 32)])  # of the levels, beyond the input
    normalized = (torch.from_numpy(layer.locations) + 0.5) / extents[:, None]
    out = multi_scale_deformable_attn_pytorch(value, shapes, normalized[None], torch.from_numpy(layer.weights)[None])
    torch.testing.assert_close(model.attn.output_proj(out) + arguments['query'], recording.output, **TOLERANCE)
    assert not layer.is_encoder
