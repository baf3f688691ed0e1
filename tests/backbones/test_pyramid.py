"""What holds for every backbone: shapes of any size, gradients, freezing, checkpointing, precision, compilation."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import SMALL_BACKBONES, SMALL_DIMS, build_small
from torch import Tensor, nn

from deformable_vit.backbones import PyramidBackbone
from deformable_vit.backbones.dat.dat import OffsetNet
from deformable_vit.backbones.dpt import DeformablePatchEmbed

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


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 96), (97, 33), (130, 70)])
def test_feature_maps_have_the_strides_of_a_pyramid(small_backbone: Build, size: tuple[int, int]) -> None:
    check_feature_maps(small_backbone().eval()(torch.randn(2, 3, *size)), 2, size)


@pytest.mark.parametrize('name', SMALL_BACKBONES)
def test_every_input_size_has_finite_feature_maps(name: str) -> None:
    backbone = build_small(name).eval()

    @settings(max_examples=10)
    @given(height=st.integers(32, 160), width=st.integers(32, 160), scale=st.sampled_from([0.0, 1.0, 100.0]))
    def check(height: int, width: int, scale: float) -> None:
        with torch.no_grad():
            check_feature_maps(backbone(torch.randn(1, 3, height, width) * scale), 1, (height, width))

    check()


@pytest.mark.parametrize('name', SMALL_BACKBONES)
def test_out_channels_are_those_of_the_outputs(name: str) -> None:
    @settings(max_examples=4)
    @given(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
    def check(out_indices: list[int]) -> None:
        backbone = build_small(name, out_indices=tuple(out_indices)).eval()
        with torch.no_grad():
            outs = backbone(torch.randn(1, 3, 32, 32))
        assert backbone.out_channels == tuple(out.shape[1] for out in outs)

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


def test_gradient_checkpointing_saves_memory_and_changes_no_gradient(small_backbone: Build) -> None:
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


def test_recomputing_activations_saves_memory_and_changes_no_gradient(small_backbone: Build) -> None:
    x, results, kept = torch.randn(1, 3, 64, 64), [], []
    for recompute in (True, False):
        torch.manual_seed(1)
        backbone = small_backbone(recompute_activation=recompute)
        parameters = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
        storages: dict[int, int] = {}

        def keep(tensor: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outs = backbone(x)
        sum(out.square().mean() for out in outs).backward()
        results.append([*outs, *(p.grad for p in backbone.parameters())])
        kept.append(sum(size for pointer, size in storages.items() if pointer not in parameters))
    hidden = sum(
        block.mlp.fc1.out_features * (64 // stride) ** 2
        for stage, stride in zip(backbone.stages, STRIDES, strict=True)
        for block in stage.blocks
    )
    assert kept[1] - kept[0] == 4 * hidden  # one float32 tensor of hidden tokens per block
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('stages', [-1, 0, 1, 3, 4])
def test_frozen_stages_do_not_train(small_backbone: Build, stages: int) -> None:
    backbone = small_backbone(frozen_stages=stages, drop_path_rate=0.2).train()
    expected = {k for k, _ in backbone.named_parameters() if stages >= 0 and k.startswith('stages.0.patch_embed.')}
    expected |= {k for k, _ in backbone.named_parameters() if int(k.split('.')[1]) < stages}
    assert {k for k, p in backbone.named_parameters() if not p.requires_grad} == expected
    assert [stage.training for stage in backbone.stages] == [i >= stages for i in range(4)]


def test_stages_after_the_last_output_neither_run_nor_train(small_backbone: Build) -> None:
    backbone = small_backbone(out_indices=(0, 1)).train()
    ran = []
    for i, stage in enumerate(backbone.stages):
        stage.register_forward_hook(lambda *_, i=i: ran.append(i))
    assert len(backbone(torch.randn(1, 3, 64, 64))) == 2
    assert ran == [0, 1]
    assert [any(p.requires_grad for p in stage.parameters()) for stage in backbone.stages] == [True, True, False, False]
    assert [stage.training for stage in backbone.stages] == [True, True, False, False]


def test_out_indices_select_outputs(small_backbone: Build) -> None:
    some, every = small_backbone(out_indices=(1, 3)).eval(), small_backbone().eval()
    assert not some.load_state_dict(every.state_dict(), strict=False).missing_keys
    x = torch.randn(1, 3, 40, 40)
    outs = every(x)
    torch.testing.assert_close(some(x), (outs[1], outs[3]))


def test_stochastic_depth_is_random_in_training_only(small_backbone: Build) -> None:
    backbone, x = small_backbone(drop_path_rate=0.5), torch.randn(4, 3, 64, 64)
    assert not torch.equal(backbone(x)[-1], backbone(x)[-1])
    backbone.eval()
    assert torch.equal(backbone(x)[-1], backbone(x)[-1])
    rates = [getattr(b.drop_path, 'drop_prob', 0.0) for stage in backbone.stages for b in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_in_channels_of_images_other_than_rgb(small_backbone: Build) -> None:
    assert small_backbone(in_channels=1)(torch.randn(1, 1, 32, 32))[-1].shape == (1, SMALL_DIMS[-1], 1, 1)


@pytest.mark.parametrize('size', [(32, 96), (64, 32), (33, 65)])
def test_feature_maps_of_one_pixel_have_finite_gradients(small_backbone: Build, size: tuple[int, int]) -> None:
    """The last feature map of these is one pixel high or wide, where the convention of DAT++ would divide by zero."""
    backbone, x = small_backbone(), torch.randn(1, 3, *size, requires_grad=True)
    sum(out.square().mean() for out in backbone(x)).backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in backbone.parameters() if p.grad is not None)


@pytest.mark.parametrize('precision', [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_is_close_to_float32(small_backbone: Build, precision: torch.dtype) -> None:
    """As ``--amp`` runs it: forward and backward are close to those of float32, and everything is finite."""
    backbone, x = small_backbone(), torch.randn(2, 3, 64, 96)
    results = []
    for enabled in (False, True):
        backbone.zero_grad()
        with torch.autocast('cpu', precision, enabled=enabled):
            outs = backbone(x)
        sum(out.float().square().mean() for out in outs).backward()
        results.append((outs, torch.cat([p.grad.flatten() for p in backbone.parameters()])))
    (exact, exact_grad), (half, half_grad) = results
    limit = 0.05 if precision == torch.bfloat16 else 0.02
    for a, b in zip(half, exact, strict=True):
        assert (a.float() - b).norm() < limit * b.norm()
    assert half_grad.isfinite().all()
    assert (half_grad - exact_grad).norm() < 3 * limit * exact_grad.norm()


@pytest.mark.parametrize('small_backbone', ['DPT', 'DAT', 'DAT++'], indirect=True)
def test_sampling_locations_are_float32_in_a_half_precision_model(small_backbone: Build) -> None:
    backbone = small_backbone().bfloat16()
    kinds = (OffsetNet, DeformablePatchEmbed)
    (layer, *_) = (m for m in backbone.modules() if isinstance(m, kinds))
    locations = layer if isinstance(layer, OffsetNet) else layer.boxes
    dim = (layer.dwconv if isinstance(layer, OffsetNet) else layer.patch_embed.proj).in_channels
    assert locations(torch.randn(1, dim, 8, 8, dtype=torch.bfloat16)).dtype == torch.float32
    assert all(out.isfinite().all() for out in backbone(torch.randn(1, 3, 64, 64).bfloat16()))


@pytest.mark.slow
@pytest.mark.usefixtures('_fresh_dynamo')
@pytest.mark.parametrize(('name', 'with_cp'), [*((name, False) for name in SMALL_BACKBONES), ('DAT', True)])
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
