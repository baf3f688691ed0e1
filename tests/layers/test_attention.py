"""Spatial-reduction attention compared with attention computed head by head."""

from functools import partial

import torch
from torch import Tensor

from deformable_vit.backbones.pvt_v2 import LinearSpatialReductionAttention
from deformable_vit.layers import SpatialReductionAttention


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
