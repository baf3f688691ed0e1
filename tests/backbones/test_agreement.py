"""Agreement with the official implementations: parameters of all published models, values and gradients of small ones.

Values and gradients are compared in float64, where rounding is far below the tolerances whatever the processor, the
number of threads and the backend, and no sampling location is so close to a kink of bilinear reads that it decides.
"""

import pytest
import torch
from golden import DATA, image, loss, official_parameters, official_state_dict, probe, reference_values
from mmengine.registry import MODELS
from torch import Tensor, nn

from deformable_vit.checkpoints import convert_classifier
from deformable_vit.checkpoints.names import translate_names
from deformable_vit.ops import use_backend

PUBLISHED = official_parameters()
TYPES = {'pvt': 'PVT', 'pvtv2': 'PVTv2', 'dpt': 'DPT', 'dat': 'DAT', 'datpp': 'DAT'}
GOLDEN = sorted(path.stem for path in (DATA / 'golden').glob('*.json'))


def backbone_config(model: str) -> dict:
    """Return the backbone config of a published model, such as ``pvt-tiny_in1k``."""
    name, kind = model.split('_')
    family, arch = name.split('-', 1)
    config = dict(type=TYPES[family], arch=arch)
    if family == 'datpp':
        config.update(arch=f'{arch}++')
    if name == 'dat-base-384':
        config.update(arch='base', pretrain_img_size=384, window_size=12)
    if kind == 'in1k':
        config.update(dict(out_type='cls_token') if family in ('pvt', 'dpt') else dict(out_indices=(3,)))
    return config


def build(model: str) -> nn.Module:
    """Build a published model with the weights of the reference values, loaded from official names."""
    if not model.endswith('_in1k'):
        backbone = MODELS.build(backbone_config(model))
        backbone.load_state_dict(official_state_dict(model))
        return backbone.eval()
    import mmpretrain.models  # noqa: F401

    backbone = backbone_config(model)
    parameters = PUBLISHED[model]['parameters']
    dim = (parameters.get('head.weight') or parameters['cls_head.weight'])[1]
    classifier = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(backbone, out_indices=(3,)),
            neck=None if 'out_type' in backbone else dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=1000, in_channels=dim),
        )
    )
    classifier.load_state_dict(convert_classifier(official_state_dict(model)))
    return classifier.eval()


def outputs_of(model: nn.Module, name: str, x: Tensor) -> dict[str, Tensor]:
    out = model(x)
    return {'logits': out} if name.endswith('_in1k') else {f'stage{i}': stage for i, stage in enumerate(out)}


def test_published_models_have_the_official_parameters() -> None:
    for model, published in PUBLISHED.items():
        with torch.device('meta'):
            backbone = MODELS.build(backbone_config(model))
            official = {k: torch.empty(shape) for k, shape in (published['parameters'] | published['buffers']).items()}
        own = {k: list(v.shape) for k, v in backbone.state_dict().items()}
        translated = {k: list(v.shape) for k, v in translate_names(official).items()}
        head = {k: translated.pop(k) for k in ('head.weight', 'head.bias') if k in translated}
        assert own == translated, model
        assert list(head) == (['head.weight', 'head.bias'] if published['kind'] == 'classifier' else [])
        in_head = sum(torch.Size(shape).numel() for shape in head.values())
        assert sum(p.numel() for p in backbone.parameters()) + in_head == published['num_params'], model


def compare(name: str, model: nn.Module, backend: str) -> None:
    """Compare outputs to 1e-11, and gradient norms to 1e-10 of their values."""
    for case in reference_values(name)['cases']:
        x = image(case['input']).double().requires_grad_()
        model.zero_grad()
        with use_backend(backend):
            outputs = outputs_of(model, name, x)
            total = loss(outputs)
            total.backward()
        assert list(outputs) == list(case['outputs'])
        for key, out in outputs.items():
            expected = case['outputs'][key]
            assert list(out.shape) == expected['shape']
            summary = dict(probe=probe(key, out).tolist(), mean=out.mean().item(), std=out.std(correction=0).item())
            for statistic, value in summary.items():
                assert value == pytest.approx(expected[statistic], rel=0, abs=1e-11), f'{backend}: {key}, {statistic}'
        assert total.item() == pytest.approx(case['loss'], rel=0, abs=1e-11), backend

        norms = {k: torch.tensor(v, dtype=torch.float64) for k, v in case['grad_norm'].items()}
        norms = convert_classifier(norms) if name.endswith('_in1k') else translate_names(norms)
        assert set(norms) == {k for k, _ in model.named_parameters()}
        assert x.grad.norm().item() == pytest.approx(case['input_grad_norm'], rel=1e-10), backend
        for key, parameter in model.named_parameters():
            norm, expected = parameter.grad.norm().item(), norms[key].item()
            if key.endswith('.attn.k.bias'):
                # Softmax is invariant to a bias of all keys: the gradient is zero, and both values are rounding errors.
                assert max(norm, expected) < 1e-10 * norms[key.replace('.k.', '.v.')].item(), f'{backend}: {key}'
            else:
                assert norm == pytest.approx(expected, rel=1e-10), f'{backend}: {key}'


@pytest.mark.parametrize('name', [name for name in GOLDEN if name.endswith('_in1k')])
def test_classifiers_compute_the_official_function(name: str) -> None:
    compare(name, build(name).double(), 'auto')


@pytest.mark.slow
@pytest.mark.parametrize('name', GOLDEN)
def test_every_backend_computes_the_official_function(name: str) -> None:
    """``auto`` runs ``grid_sample`` and ``chunked`` here."""
    model = build(name).double()
    compare(name, model, 'reference')
    if name.endswith('_backbone'):
        compare(name, model, 'auto')
    if name.startswith(('dat', 'dpt')):
        compare(name, model, 'mmcv')
    if name.startswith('dat'):
        compare(name, model, 'separable')
