"""The layers that backbones share: patch embeddings, attention, MLPs and blocks, most by hand."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deformable_vit.backbones.dat import DATBlock
from deformable_vit.backbones.dat.dat import ResidualConvMLP
from deformable_vit.backbones.pvt_v2 import LinearConvMLP, LinearSpatialReductionAttention
from deformable_vit.layers import (
    MLP,
    ConvMLP,
    OverlapPatchEmbed,
    PatchEmbed,
    SpatialReductionAttention,
    TransformerBlock,
)

sizes = st.integers(1, 20)


@settings(max_examples=30)
@given(sizes, sizes, st.integers(1, 5), st.sampled_from([PatchEmbed, OverlapPatchEmbed]), st.booleans())
def test_tokens_depend_on_every_pixel(height: int, width: int, stride: int, kind: type[PatchEmbed], bias: bool) -> None:
    patch_embed = kind(2, 6, stride, bias=bias)
    x = torch.randn(2, 2, height, width, requires_grad=True)
    tokens, hw = patch_embed(x)
    assert hw == (math.ceil(height / stride), math.ceil(width / stride))
    assert tokens.shape == (2, hw[0] * hw[1], 6)
    (patch_embed.project(x) ** 2).sum().backward()
    assert x.grad.ne(0).all()
    assert (patch_embed.proj.bias is not None) == bias


def test_patches_are_padded_with_zeros_at_the_bottom_and_right() -> None:
    patch_embed = PatchEmbed(1, 1, 2, bias=False)
    nn.init.ones_(patch_embed.proj.weight)
    x = torch.arange(1.0, 16.0).view(1, 1, 3, 5)
    expected = torch.tensor([[1.0 + 2 + 6 + 7, 3 + 4 + 8 + 9, 5 + 10], [11 + 12, 13 + 14, 15]])
    torch.testing.assert_close(patch_embed.project(x)[0, 0], expected)


def attention_by_head(attn: SpatialReductionAttention, x: Tensor, hw: tuple[int, int]) -> Tensor:
    """Compute the layer head by head, with the whole attention matrix."""
    q, kv = attn.q(x), attn.kv(attn.reduce(x, hw))
    k, v = kv.chunk(2, dim=-1)
    out = []
    for q_h, k_h, v_h in zip(*(t.chunk(attn.num_heads, dim=-1) for t in (q, k, v)), strict=True):
        weights = (q_h @ k_h.transpose(1, 2) / q_h.shape[-1] ** 0.5).softmax(dim=-1)
        out.append(weights @ v_h)
    return attn.proj(torch.cat(out, dim=-1))


def test_heads_attend_separately() -> None:
    layers = (
        SpatialReductionAttention(24, 3),
        SpatialReductionAttention(24, 3, sr_ratio=4),
        LinearSpatialReductionAttention(24, 3),
    )
    for attn in layers:
        attn.double()
        for hw in ((8, 8), (9, 14)):
            x = torch.randn(2, hw[0] * hw[1], 24, dtype=torch.float64, requires_grad=True)
            cotangent = torch.randn_like(x)
            results = []
            for function in (attn, partial(attention_by_head, attn)):
                out = function(x, hw)
                results.append((out, *torch.autograd.grad((out * cotangent).sum(), [x, *attn.parameters()])))
            for a, b in zip(*results, strict=True):
                torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_reduction_by_averaging_weights_returns_the_means() -> None:
    attn = SpatialReductionAttention(4, 1, sr_ratio=2)
    with torch.no_grad():
        attn.sr.weight.copy_(torch.eye(4)[:, :, None, None].expand(4, 4, 2, 2) / 4)
        attn.sr.bias.zero_()
    attn.norm = torch.nn.Identity()
    x = torch.randn(1, 4 * 6, 4)
    grid = x.reshape(2, 2, 3, 2, 4)  # (row block, row, column block, column, channel)
    torch.testing.assert_close(attn.reduce(x, (4, 6)), grid.mean(dim=(1, 3)).reshape(1, 6, 4))


def test_reduction_drops_rows_and_columns_that_fill_no_key() -> None:
    attn, x = SpatialReductionAttention(4, 1, sr_ratio=2), torch.randn(1, 5 * 7, 4)
    cropped = x.unflatten(1, (5, 7))[:, :4, :6].flatten(1, 2)
    torch.testing.assert_close(attn.reduce(x, (5, 7)), attn.reduce(cropped, (4, 6)))


def test_linear_attention_has_49_keys_for_any_size() -> None:
    attn = LinearSpatialReductionAttention(8, 2)
    for hw in ((3, 5), (7, 7), (40, 33)):
        assert attn.reduce(torch.randn(1, hw[0] * hw[1], 8), hw).shape == (1, 49, 8)


@pytest.mark.parametrize('kind', [MLP, ConvMLP, LinearConvMLP, ResidualConvMLP])
def test_recomputed_activations_are_not_kept(kind: type[MLP]) -> None:
    """One tensor of the hidden size less is kept, and the output and the gradients stay the same."""
    x = torch.randn(2, 4 * 6, 8)
    results, kept = [], []
    for recompute in (True, False):
        torch.manual_seed(0)
        mlp = kind(8, 32, recompute_activation=recompute)
        storages: dict[int, Tensor] = {}

        def keep(t: Tensor, storages: dict[int, Tensor] = storages) -> Tensor:
            if t.numel() == 2 * 4 * 6 * 32:
                storages[t.untyped_storage().data_ptr()] = t
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            out = mlp(x, (4, 6))
        out.square().sum().backward()
        results.append((out, *(p.grad for p in mlp.parameters())))
        kept.append(len(storages))
    assert kept[0] == kept[1] - 1
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_recomputation_repeats_the_random_state_of_forward() -> None:
    """With a second layer that draws random numbers, such as an adapter with dropout."""
    gradients = []
    for recompute in (True, False):
        torch.manual_seed(0)
        mlp = MLP(8, 32, recompute_activation=recompute)
        mlp.fc2 = nn.Sequential(mlp.fc2, nn.Dropout(0.5))
        x = torch.randn(2, 24, 8, requires_grad=True)
        gradients += torch.autograd.grad(mlp(x, (4, 6)).square().sum(), x)
    torch.testing.assert_close(*gradients)


class Scale(nn.Module):
    """Stand in for attention or the MLP: multiply the tokens."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        assert hw == (2, 3)
        return x * self.factor


def test_block_adds_both_branches_of_normalized_tokens() -> None:
    block = TransformerBlock(8, Scale(2.0), Scale(-3.0), eps=1e-3)
    x = torch.randn(4, 6, 8)
    y = x + 2 * nn.functional.layer_norm(x, (8,), eps=1e-3)
    torch.testing.assert_close(block(x, (2, 3)), y - 3 * nn.functional.layer_norm(y, (8,), eps=1e-3))


def test_stochastic_depth_drops_a_branch_of_whole_samples() -> None:
    block = TransformerBlock(8, Scale(1.0), Scale(0.0), drop_path=0.5).train()
    x = torch.randn(200, 6, 8)
    branch = nn.functional.layer_norm(x, (8,), eps=1e-6)
    out = block(x, (2, 3)) - x
    kept = out.flatten(1).norm(dim=1) > 0
    assert 60 < kept.sum() < 140
    torch.testing.assert_close(out[kept], 2 * branch[kept])  # by 1 / (1 - rate), so that the expectation stays
    block.eval()
    torch.testing.assert_close(block(x, (2, 3)), x + branch)


def test_layer_scale_and_local_perception_unit_of_dat_by_hand() -> None:
    block = DATBlock(8, Scale(2.0), Scale(-3.0), drop_path=0.0, lpu=True, layer_scale=0.1)
    x = torch.randn(4, 6, 8)
    feature_map = x.transpose(1, 2).reshape(4, 8, 2, 3)
    y = x + block.lpu(feature_map).flatten(2).transpose(1, 2)
    y = y + 0.2 * nn.functional.layer_norm(y, (8,), eps=1e-5)
    torch.testing.assert_close(block(x, (2, 3)), y - 0.3 * nn.functional.layer_norm(y, (8,), eps=1e-5))
