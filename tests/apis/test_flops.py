"""FLOPs and parameters: layers against hand-computed values, models against the numbers of their papers."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from running import ROOT
from torch import nn

from deformable_vit.apis.flops import count_flops, count_parameters
from deformable_vit.backbones.dat.dat import DeformableAttention
from deformable_vit.ops import BACKENDS, use_backend

# From the papers: M parameters and G FLOPs of the classifiers at 224 x 224.
PUBLISHED = {
    ('PVT', 'tiny'): (13.2, 1.9),
    ('PVT', 'small'): (24.5, 3.8),
    ('PVT', 'medium'): (44.2, 6.7),
    ('PVT', 'large'): (61.4, 9.8),
    ('PVTv2', 'b2'): (25.4, 4.04),
    ('DPT', 'tiny'): (15.2, 2.1),
    ('DPT', 'small'): (26.4, 4.0),
    ('DPT', 'medium'): (46.1, 6.9),
    ('DAT', 'tiny'): (28.3, 4.6),
    ('DAT', 'small'): (49.7, 9.0),
    ('DAT', 'base'): (87.9, 15.8),
    ('DAT', 'tiny++'): (24, 4.3),
    ('DAT', 'small++'): (53, 9.4),
    ('DAT', 'base++'): (93, 16.6),
}
ABLATION = {
    'dat-tiny-d1234_8xb128_in1k': (28.39, 4.64),
    'dat-tiny-d234_8xb128_in1k': (28.34, 4.60),
    'dat-tiny_8xb128_in1k': (28.32, 4.59),
    'dat-tiny-d4_8xb128_in1k': (28.29, 4.51),
}


def classifier(backbone: dict, size: int = 224) -> tuple[float, float]:
    """Return M parameters and G FLOPs with a linear head of 1000 classes."""
    if backbone['type'] in ('PVT', 'DPT'):
        backbone = dict(backbone, out_type='cls_token')
    with torch.device('meta'):
        model = MODELS.build(dict(backbone, out_indices=(3,)))
    model.to_empty(device='cpu')
    for tensor in model.state_dict().values():
        tensor.zero_()
    head = (model.arch['embed_dims'][-1] + 1) * 1000
    flops = count_flops(model, torch.zeros(1, 3, size, size)) + head
    return (count_parameters(model) + head) / 1e6, flops / 1e9


@pytest.mark.parametrize('others', [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_published_models_have_the_numbers_of_their_papers(others: bool) -> None:
    for kind, arch in PUBLISHED:
        if (arch not in ('b2', 'tiny', 'tiny++')) == others:  # of each family the smallest
            parameters, flops = classifier(dict(type=kind, arch=arch))
            assert parameters == pytest.approx(PUBLISHED[kind, arch][0], rel=0.01), arch
            assert flops == pytest.approx(PUBLISHED[kind, arch][1], rel=0.03), arch


@pytest.mark.nightly
def test_published_models_at_384_and_the_ablation_of_dat() -> None:
    parameters, flops = classifier(dict(type='DAT', arch='base', pretrain_img_size=384, window_size=12), 384)
    assert (round(parameters, 1), flops) == (88.2, pytest.approx(49.8, rel=0.03))
    parameters, flops = classifier(dict(type='DAT', arch='base++'), 384)
    assert (round(parameters), flops) == (94, pytest.approx(49.7, rel=0.03))
    for name, expected in ABLATION.items():  # to the last digit
        backbone = Config.fromfile(ROOT / 'configs' / 'dat' / f'{name}.py').model.backbone
        parameters, flops = classifier(backbone)
        assert (round(parameters, 2), round(flops, 2)) == expected


@pytest.mark.parametrize('backend', BACKENDS)
def test_deformable_attention(backend: str) -> None:
    """The count does not depend on the default backend."""
    queries, keys, dim, heads, groups = 6 * 8, 3 * 4, 8, 4, 2
    layer = DeformableAttention(dim, heads, groups, stride=2, offset_kernel=3, table_size=(5, 7))
    offsets = groups * keys * (dim // groups) * (9 + 1 + 5 + 2)  # depthwise, bias, norm, projection to (y, x)
    projections = queries * 2 * (dim * dim + dim)  # queries and output
    key_value = keys * (dim * 2 * dim + 2 * dim + 4 * dim)
    attention = queries * keys * (2 * dim + 2 * heads)  # products, and the bias interpolated along y, then x

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x, (6, 8))

    with use_backend(backend):
        counted = count_flops(Model(), torch.zeros(1, queries, dim))
    assert counted == offsets + projections + key_value + attention


def test_multihead_attention_of_torch_is_counted() -> None:
    """DETR's attention: a fused op would hide the products."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    products = 5 * (8 * 24 + 8 * 8) + 2 * 5 * 5 * 8
    assert count_flops(layer, torch.zeros(1, 5, 8)) >= products + 5 * 2 * 8 * 16


def test_counting_leaves_the_model_unchanged() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    count_flops(model, torch.zeros(1, 2))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.backends.mha.get_fastpath_enabled()
