"""What holds for every registered backbone: shapes at odd sizes, gradients, freezing, checkpointing, errors."""

import pytest
import torch
from mmengine.registry import MODELS

from deformable_vit.layers import DeformablePatchEmbed, OffsetNet

# Small versions, quick enough to run through everything; the real sizes are held by test_agreement.py.
_DIMS = dict(embed_dims=(16, 32, 40, 64), depths=(1, 2, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2))
SMALL = {
    'PVT': dict(type='PVT', arch=dict(_DIMS, sr_ratios=(8, 4, 2, 1)), pretrain_img_size=64),
    'PVTv2': dict(type='PVTv2', arch=dict(_DIMS, sr_ratios=(8, 4, 2, 1), linear=False)),
    'PVTv2-li': dict(type='PVTv2', arch=dict(_DIMS, sr_ratios=(8, 4, 2, 1), linear=True)),
    'DPT': dict(type='DPT', arch=dict(_DIMS, sr_ratios=(8, 4, 2, 1), points=(0, 3, 3, 3)), pretrain_img_size=64),
    'DAT': dict(
        type='DAT',
        arch=dict(_DIMS, like='tiny', blocks=('S', 'LD', 'D', 'D'), groups=(1, 2, 5, 4), strides=(4, 2, 1, 1)),
        pretrain_img_size=64,
    ),
    'DAT++': dict(
        type='DAT',
        arch=dict(_DIMS, like='tiny++', blocks=('N', 'ND', 'D', 'D'), groups=(1, 2, 5, 4), layer_scale=1e-2),
        pretrain_img_size=64,
    ),
    'DAT, no bias': dict(
        type='DAT',
        arch=dict(_DIMS, like='tiny', blocks=('D', 'DL', 'D', 'D'), groups=(1, 1, 1, 1), position_bias=(False,) * 4),
        window_size=4,
    ),
}
DIMS = _DIMS['embed_dims']
each_backbone = pytest.mark.parametrize('name', SMALL)


def build(name: str, **kwargs) -> torch.nn.Module:
    return MODELS.build(dict(SMALL[name], **kwargs))


@each_backbone
@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 96), (97, 33), (130, 70)])
def test_strides_for_any_size(name: str, size: tuple[int, int]) -> None:
    outs = build(name).eval()(torch.randn(2, 3, *size))
    expected = [(2, dim, -(-size[0] // s), -(-size[1] // s)) for dim, s in zip(DIMS, (4, 8, 16, 32), strict=True)]
    assert [tuple(out.shape) for out in outs] == expected
    # mmcv 2.1's CPU RoIAlign reads any other layout wrongly, without a word.
    assert all(out.is_contiguous() for out in outs)
    assert all(out.isfinite().all() for out in outs)


@each_backbone
def test_each_picture_of_a_batch_is_alone(name: str) -> None:
    backbone, x = build(name).eval(), torch.randn(2, 3, 64, 48)
    for together, alone in zip(backbone(x), backbone(x[1:]), strict=True):
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


@each_backbone
def test_gradients_reach_every_parameter(name: str) -> None:
    backbone = build(name)
    for module in backbone.modules():
        if hasattr(module, 'offset_predictor'):  # begins with zeros, which let nothing through
            torch.nn.init.normal_(module.offset_predictor.weight, std=0.02)
    sum(out.square().mean() for out in backbone(torch.randn(2, 3, 64, 64))).backward()
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@each_backbone
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    plain, saving, x = build(name), build(name, with_cp=True), torch.randn(1, 3, 64, 64)
    saving.load_state_dict(plain.state_dict())
    kept = {}
    for backbone in (plain, saving):
        saved = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
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


@each_backbone
@pytest.mark.parametrize('stages', [-1, 0, 1, 3, 4])
def test_frozen_stages(name: str, stages: int) -> None:
    backbone = build(name, frozen_stages=stages, drop_path_rate=0.2).train()
    expected = {k for k, _ in backbone.named_parameters() if stages >= 0 and k.startswith('stages.0.patch_embed.')}
    expected |= {k for k, _ in backbone.named_parameters() if int(k.split('.')[1]) < stages}
    assert {k for k, p in backbone.named_parameters() if not p.requires_grad} == expected
    assert [stage.training for stage in backbone.stages] == [i >= stages for i in range(4)]


@each_backbone
def test_stages_that_nobody_reads_neither_run_nor_train(name: str) -> None:
    backbone = build(name, out_indices=(0, 1)).train()
    ran = []
    for i, stage in enumerate(backbone.stages):
        stage.register_forward_hook(lambda *_, i=i: ran.append(i))
    assert len(backbone(torch.randn(1, 3, 64, 64))) == 2
    assert ran == [0, 1]
    assert [any(p.requires_grad for p in stage.parameters()) for stage in backbone.stages] == [True, True, False, False]
    assert [stage.training for stage in backbone.stages] == [True, True, False, False]


@each_backbone
def test_out_indices(name: str) -> None:
    some, every = build(name, out_indices=(1, 3)).eval(), build(name).eval()
    assert not some.load_state_dict(every.state_dict(), strict=False).missing_keys
    x = torch.randn(1, 3, 40, 40)
    outs = every(x)
    torch.testing.assert_close(some(x), (outs[1], outs[3]))


@each_backbone
def test_drop_path_is_random_in_training_only(name: str) -> None:
    backbone, x = build(name, drop_path_rate=0.5), torch.randn(4, 3, 64, 64)
    assert not torch.equal(backbone(x)[-1], backbone(x)[-1])
    backbone.eval()
    assert torch.equal(backbone(x)[-1], backbone(x)[-1])
    rates = [getattr(b.drop_path, 'drop_prob', 0.0) for stage in backbone.stages for b in stage.blocks]
    assert rates == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5])


@each_backbone
def test_other_inputs(name: str) -> None:
    assert build(name, in_channels=1)(torch.randn(1, 1, 32, 32))[-1].shape == (1, DIMS[-1], 1, 1)


@each_backbone
@pytest.mark.parametrize('size', [(32, 96), (64, 32), (33, 65)])
def test_maps_of_one_pixel_have_gradients(name: str, size: tuple[int, int]) -> None:
    """Stage 4 of these is one pixel high or wide, where a convention of DAT++ would divide by zero."""
    backbone, x = build(name), torch.randn(1, 3, *size, requires_grad=True)
    sum(out.square().mean() for out in backbone(x)).backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in backbone.parameters() if p.grad is not None)


@each_backbone
@pytest.mark.parametrize('precision', [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision(name: str, precision: torch.dtype) -> None:
    """As ``--amp`` runs it: forward and backward near those of float32, and nothing that is not finite."""
    backbone, x = build(name), torch.randn(2, 3, 64, 96)
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


@pytest.mark.parametrize('name', ['DPT', 'DAT', 'DAT++'])
def test_places_are_float32_even_in_a_half_model(name: str) -> None:
    backbone = build(name).bfloat16()
    kinds = (OffsetNet, DeformablePatchEmbed)
    (layer, *_) = (m for m in backbone.modules() if isinstance(m, kinds))
    places = layer if isinstance(layer, OffsetNet) else layer.boxes
    dim = (layer.dwconv if isinstance(layer, OffsetNet) else layer.patch_embed.proj).in_channels
    assert places(torch.randn(1, dim, 8, 8, dtype=torch.bfloat16)).dtype == torch.float32
    assert all(out.isfinite().all() for out in backbone(torch.randn(1, 3, 64, 64).bfloat16()))


@pytest.mark.parametrize(('name', 'with_cp'), [*((name, False) for name in SMALL), ('DAT', True)])
def test_compiled(name: str, with_cp: bool) -> None:
    """torch.compile computes the same; the graph is traced and run without a C++ compiler's minutes."""
    torch._dynamo.reset()
    backbone, x = build(name, with_cp=with_cp), torch.randn(1, 3, 64, 64)
    compiled = torch.compile(backbone, backend='aot_eager', fullgraph=True)
    results = []
    for model in (backbone, compiled):
        backbone.zero_grad()
        outs = model(x)
        sum(out.square().mean() for out in outs).backward()
        results.append((*outs, *(p.grad for p in backbone.parameters())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_class_token_of_pvt() -> None:
    backbone = build('PVT', out_type='cls_token', out_indices=(2, 3)).eval()
    x = torch.randn(2, 3, 64, 64)
    third, token = backbone(x)
    assert third.shape == (2, 40, 4, 4)
    assert token.shape == (2, 64)
    # The token is normalised: with unit weight and no bias its channels have mean 0 and variance 1.
    torch.testing.assert_close(token.mean(1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(token.var(1, correction=0), torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(type='PVT', arch='huge'), r"no arch 'huge'.*tiny, small, medium, large"),
        (dict(type='PVTv2', arch='b9'), r"no arch 'b9'.*b2-li"),
        (dict(type='PVT', arch=dict(depths=(1, 1, 1, 1))), r"missing=\['embed_dims'"),
        (dict(SMALL['PVT'], arch=dict(SMALL['PVT']['arch'], depths=(1, 1, 1))), r"arch\['depths'\] needs 4 values"),
        (
            dict(SMALL['PVT'], arch=dict(SMALL['PVT']['arch'], num_heads=(1, 2, 3, 8))),
            '3 heads do not divide 40 channels',
        ),
        (dict(type='PVT', out_type='tokens'), "out_type must be .* got 'tokens'"),
        (dict(type='PVT', out_indices=(0, 4)), r'out_indices must be some of 0, 1, 2, 3, got \(0, 4\)'),
        (dict(type='PVTv2', frozen_stages=5), 'frozen_stages must be .* got 5'),
        (dict(type='PVTv2', drop_path_rate=1.0), r'drop_path_rate must be in \[0, 1\), got 1.0'),
        (dict(type='DAT', arch='tiny+'), r"DAT has no arch 'tiny\+'; it has tiny, small, base, tiny\+\+"),
        (dict(type='DAT', arch=dict(like='huge')), "no arch 'huge'"),
        (dict(type='DAT', arch=dict(like='tiny', depth=3)), r"missing=\[\], unknown=\['depth'\]"),
        (
            dict(type='DAT', arch=dict(like='tiny', blocks=('LS', 'LS', 'LDLD', 'LD'))),
            "stage 3: the pattern 'LDLD' of 4 blocks does not add up to a depth of 6",
        ),
        (
            dict(type='DAT', arch=dict(like='tiny', blocks=('LS', 'LX', 'LD', 'LD'))),
            "stage 2: .* L, S, D and N, got 'LX'",
        ),
        (dict(type='DAT', arch=dict(like='tiny', groups=(1, 2, 5, 6))), 'stage 3: 5 groups do not divide 12 heads'),
        (dict(type='DAT', arch=dict(like='tiny', strides=(1, 1, 0, 1))), 'stage 3: .* got stride 0 and kernel 5'),
        (
            dict(type='DAT', arch=dict(like='tiny', offset_kernels=(1, 1, 4, 1))),
            'stage 3: .* got stride 1 and kernel 4',
        ),
        (dict(type='DAT', arch=dict(like='tiny', coordinates='middle')), "coordinates must be .* got 'middle'"),
        (dict(type='DAT', arch=3), 'arch must be one of tiny, .* got 3'),
        (dict(type='DAT', arch=dict(like='tiny', num_heads=(0, 6, 12, 24))), '0 heads do not divide 96 channels'),
        (
            dict(type='DAT', arch=dict(like='tiny', offset_ranges=(2, 2, -2, 2))),
            'stage 3: offset_ranges must .* got -2',
        ),
        (dict(type='DAT', pretrain_img_size=0), 'pretrain_img_size must be at least 32 pixels, got 0'),
        (dict(type='PVT', pretrain_img_size=(224, 8)), r'pretrain_img_size must be at least 32 pixels, got \(224, 8\)'),
        (dict(type='DAT', arch='tiny++', kernel_size=-1), 'kernel of neighbourhood attention must be odd, got -1'),
        (dict(type='DAT', window_size=1), 'window_size must be at least 2, got 1'),
        (dict(type='DAT', arch='tiny++', kernel_size=6), 'kernel of neighbourhood attention must be odd, got 6'),
        (dict(type='DPT', arch='large'), "DPT has no arch 'large'; it has tiny, small, medium"),
        (dict(type='DPT', arch=dict(like='tiny', points=(0, 3, -1, 3))), r'points must be 0 .* got \(0, 3, -1, 3\)'),
    ],
)
def test_errors_at_construction(kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MODELS.build(kwargs)


def test_error_for_small_pictures() -> None:
    with pytest.raises(ValueError, match='at least 32 x 32 pixels, got height x width 64 x 31'):
        build('PVT')(torch.randn(1, 3, 64, 31))
