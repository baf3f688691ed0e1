"""Patch embeddings: every pixel of an input of any size belongs to a token."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deformable_vit.layers import OverlapPatchEmbed, PatchEmbed

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


def test_overlapping_patches_extend_by_half_a_patch_to_each_side() -> None:
    patch_embed = OverlapPatchEmbed(1, 1, 2, bias=False)
    nn.init.ones_(patch_embed.proj.weight)
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 3, 2] = 1.0  # within the patches around rows 2 and 4, and around column 2 only
    assert patch_embed.project(x)[0, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
