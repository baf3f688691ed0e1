"""What holds for every backbone: shapes of any size, gradients, freezing, recomputation, precision, compilation."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_models import SMALL_DIMS, build_small
from torch import Tensor, nn

from deformable_vit.backbones import PyramidBackbone

Build = Callable[..., PyramidBackbone]
STRIDES = (4, 8, 16, 32)


def check_feature_maps(outs: tuple[Tensor, ...], batch: int, size: tuple[int, int]) -> None:
    expected = [
        (batch, dim, *(math.ceil(n / stride) for n in size)) for dim, stride in zip(SMALL_DIMS, STRIDES, strict=True)
    ]
    assert [tuple(out.shape) for out in outs] == expected
    # RoIAlign of mmcv 2.1 on a CPU silently misreads any other memory format.
    assert all(out.is_contiguous() for out in outs)
    assert all(out.isfinite().all() for out in outs)


def test_every_input_size_has_finite_feature_maps(small_backbone: Build) -> None:
    backbone = small_backbone().eval()

    @settings(max_examples=6)
    @given(height=st.integers(32, 160), width=st.integers(32, 160), scale=st.sampled_from([0.0, 1.0, 100.0]))
    @example(height=32, width=32, scale=1.0)
    @example(height=97, width=33, scale=1.0)
    def check(height: int, width: int, scale: float) -> None:
        with torch.no_grad():
            check_feature_maps(backbone(torch.randn(2, 3, height, width) * scale), 2, (height, width))

    check()


def test_images_of_a_batch_do_not_affect_each_other(small_backbone: Build) -> None:
    backbone, x = small_backbone().eval(), torch.randn(2, 3, 64, 48)
    for together, alone in zip(backbone(x), backbone(x[1:]), strict=True):
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_every_parameter_has_a_gradient(small_backbone: Build) -> None:
    backbone = small_backbone()
    for module in backbone.modules():
        if hasattr(module, 'offset_predictor'):  # its initial zeros block the gradients of what is before it
            nn.init.normal_(module.offset_predictor.weight, std=0.02)
    sum(out.square().mean() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


def test_recomputing_blocks_saves_memory_and_changes_no_gradient(small_backbone: Build) -> None:
    plain, saving, x = small_backbone(), small_backbone(with_cp=True), torch.randn(1, 3, 64, 64)
    saving.load_state_dict(plain.state_dict())
    kept = {}
    for backbone in (plain, saving):
        saved = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = sum(out.square().mean() for out in backbone(x))
        kept[backbone] = saved
        loss.backward()
    assert kept[saving] < 0.6 * kept[plain]
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)


def test_frozen_stages_do_not_train(small_backbone: Build) -> None:
    for stages in (-1, 0, 1, 3, 4):
        backbone = small_backbone(frozen_stages=stages, drop_path_rate=0.2).train()
        expected = {k for k, _ in backbone.named_parameters() if stages >= 0 and k.startswith('stages.0.patch_embed.')}
        expected |= {k for k, _ in backbone.named_parameters() if int(k.split('.')[1]) < stages}
        assert {k for k, p in backbone.named_parameters() if not p.requires_grad} == expected
        assert [stage.training for stage in backbone.stages] == [i >= stages for i in range(4)]


def test_out_indices_select_outputs(small_backbone: Build) -> None:
    """Stages after the last output neither run nor train."""
    every, x = small_backbone().eval(), torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        outs = every(x)
    assert every.out_strides == STRIDES
    for out_indices in ((0,), (1, 3), [2, 0]):
        some = small_backbone(out_indices=out_indices)
        assert not some.load_state_dict(every.state_dict(), strict=False).missing_keys
        chosen, last = sorted(out_indices), max(out_indices)
        assert some.out_channels == tuple(SMALL_DIMS[i] for i in chosen)
        assert some.out_strides == tuple(STRIDES[i] for i in chosen)
        trains = [any(p.requires_grad for p in stage.parameters()) for stage in some.train().stages]
        assert trains == [stage.training for stage in some.stages] == [i <= last for i in range(4)]
        ran: list[int] = []
        for i, stage in enumerate(some.eval().stages):
            stage.register_forward_hook(lambda *_, i=i, ran=ran: ran.append(i))
        with torch.no_grad():
            torch.testing.assert_close(some(x), tuple(outs[i] for i in chosen))
        assert ran == list(range(last + 1))


def test_every_other_pixel_is_that_of_stride_32(small_backbone: Build) -> None:
    """The pixels in between are computed like the others: those of the input that begins a pixel later."""
    plain, dense = small_backbone().eval(), small_backbone(output_stride=16).eval()
    dense.load_state_dict(plain.state_dict())
    for size in ((32, 32), (64, 96), (97, 33)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            *expected, coarse = plain(x)
            *outs, fine = dense(x)
        assert fine.shape == (2, SMALL_DIMS[-1], *(math.ceil(n / 16) for n in size))
        assert fine.is_contiguous()
        torch.testing.assert_close(fine[..., ::2, ::2], coarse)
        assert all(torch.equal(out, same) for out, same in zip(outs, expected, strict=True))
    assert dense.out_strides == (4, 8, 16, 16)
    with torch.no_grad():
        x = torch.randn(1, 128, 6, 6)
        below = dense.without_stride(x[..., 1:, :])
        torch.testing.assert_close(dense.without_stride(x)[..., 1::2, ::2], below[..., ::2, ::2])


def test_stochastic_depth_is_random_in_training_only(small_backbone: Build) -> None:
    backbone, x = small_backbone(drop_path_rate=0.5), torch.randn(4, 3, 64, 64)
    assert not torch.equal(backbone(x)[-1], backbone(x)[-1])
    backbone.eval()
    assert torch.equal(backbone(x)[-1], backbone(x)[-1])
    rates = [getattr(b.drop_path, 'drop_prob', 0.0) for stage in backbone.stages for b in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_in_channels_of_images_other_than_rgb(small_backbone: Build) -> None:
    assert small_backbone(in_channels=1)(torch.randn(1, 1, 32, 32))[-1].shape == (1, SMALL_DIMS[-1], 1, 1)


def test_feature_maps_of_one_pixel_have_finite_gradients(small_backbone: Build) -> None:
    """The last feature map of these is one pixel high or wide, where the convention of DAT++ would divide by zero."""
    backbone = small_backbone()
    for size in ((32, 96), (64, 32), (33, 65)):
        x = torch.randn(1, 3, *size, requires_grad=True)
        sum(out.square().mean() for out in backbone(x)).backward()
        assert x.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in backbone.parameters() if p.grad is not None)


def test_mixed_precision_is_close_to_float32(small_backbone: Build) -> None:
    """As ``--amp`` runs it: forward and backward are close to those of float32, and everything is finite."""
    backbone, x = small_backbone(), torch.randn(2, 3, 64, 96)
    results = {}
    for precision in (torch.float32, torch.bfloat16, torch.float16):
        backbone.zero_grad()
        with torch.autocast('cpu', precision, enabled=precision != torch.float32):
            outs = backbone(x)
        sum(out.float().square().mean() for out in outs).backward()
        results[precision] = outs, torch.cat([p.grad.flatten() for p in backbone.parameters()])
    exact, exact_grad = results.pop(torch.float32)
    for precision, (half, half_grad) in results.items():
        limit = 0.05 if precision == torch.bfloat16 else 0.02
        for a, b in zip(half, exact, strict=True):
            assert (a.float() - b).norm() < limit * b.norm()
        assert half_grad.isfinite().all()
        assert (half_grad - exact_grad).norm() < 3 * limit * exact_grad.norm()


@pytest.mark.slow
@pytest.mark.usefixtures('_fresh_dynamo')
@pytest.mark.parametrize(('name', 'with_cp'), [('PVTv2', True), ('DPT', False), ('DAT', True), ('DAT++', False)])
def test_compiled_backbones_compute_the_same(name: str, with_cp: bool) -> None:
    """The graph is traced and run, without the minutes of a C++ compiler."""
    backbone, x = build_small(name, with_cp=with_cp), torch.randn(1, 3, 64, 64)
    compiled = torch.compile(backbone, backend='aot_eager', fullgraph=True)
    results = []
    for model in (backbone, compiled):
        backbone.zero_grad()
        outs = model(x)
        sum(out.square().mean() for out in outs).backward()
        results.append((*outs, *(p.grad for p in backbone.parameters())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_layers_are_counted_as_in_mmpretrain() -> None:
    """The small backbones have 1, 2, 2 and 1 blocks."""
    pvt, pvt_v2, dat = (build_small(name) for name in ('PVT', 'PVTv2', 'DAT'))
    pvt.get_submodule('stages.3').register_parameter('cls_token', nn.Parameter(torch.zeros(1)))
    expected = {
        pvt: {
            'stages.0.patch_embed.proj.weight': 0,
            'stages.0.pos_embed': 0,
            'stages.0.blocks.0.attn.q.weight': 1,
            'stages.1.patch_embed.norm.bias': 1,
            'stages.1.pos_embed': 1,
            'stages.1.blocks.0.mlp.fc1.bias': 2,
            'stages.2.blocks.1.norm1.weight': 5,
            'stages.3.cls_token': 5,
            'stages.3.blocks.0.attn.proj.base_layer.weight': 6,
        },
        pvt_v2: {'stages.0.norm.weight': 1, 'stages.2.norm.bias': 5, 'stages.3.norm.bias': 7},
        dat: {'norms.0.weight': 7, 'norms.3.bias': 7, 'stages.3.blocks.0.attn.rpe_table': 6},
    }
    for backbone, depths in expected.items():
        for name, depth in depths.items():
            assert backbone.get_layer_depth(name) == (depth, 8), name
            assert backbone.get_layer_depth(f'backbone.{name}', 'backbone.') == (depth, 8), name
        assert backbone.get_layer_depth('head.fc.weight', 'backbone.') == (7, 8)
        assert backbone.get_layer_depth('neck.stages.0.weight', 'backbone.') == (7, 8)


def test_depth_never_decreases_with_the_layers(small_backbone: Build) -> None:
    backbone = small_backbone()
    depths = [backbone.get_layer_depth(name)[0] for name, _ in backbone.named_parameters() if '.pos_embed' not in name]
    assert depths == sorted(depths)
    assert set(depths) >= set(range(7))
