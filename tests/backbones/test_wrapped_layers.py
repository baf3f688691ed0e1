"""What acts on the layers of a model (LoRA, quantization, weight norm, pruning, hooks) acts on every layer."""

import copy
import io
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from small_models import SMALL_BACKBONES, build_small
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.nn.utils import parametrizations, prune, weight_norm

from deformable_vit.backbones import PyramidBackbone
from deformable_vit.backbones.dpt import DeformablePatchEmbed

Build = Callable[..., PyramidBackbone]
SIZE = (1, 3, 64, 96)


class Wrapper(nn.Module):
    """A layer in another module, which has nothing of it but its call."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class LoRA(Wrapper):
    """A linear layer and a low-rank path beside it, with the weight of the layer as PEFT shows it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.down, self.up = nn.Linear(layer.in_features, 2, bias=False), nn.Linear(2, layer.out_features, bias=False)

    weight = property(lambda self: self.layer.weight)
    bias = property(lambda self: self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.up(self.down(x))


def layers_of(model: nn.Module, kinds: type | tuple[type, ...] = (nn.Linear, nn.Conv2d)) -> dict[str, Any]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}


def replace(model: nn.Module, kinds: type | tuple[type, ...], wrap: Callable[[Any], nn.Module]) -> list[Any]:
    """Replace the layers of a model; return what replaces them."""
    wrapped = {name: wrap(layer) for name, layer in layers_of(model, kinds).items()}
    for name, layer in wrapped.items():
        model.set_submodule(name, layer)
    return list(wrapped.values())


def with_offsets(model: PyramidBackbone) -> PyramidBackbone:
    """Give deformable patches offsets: zeros, as they are at first, hide what is before them."""
    for module in model.modules():
        if isinstance(module, DeformablePatchEmbed):
            nn.init.normal_(module.offset_predictor.weight, std=0.02)
    return model


def loss(outs: Iterable[Tensor]) -> Tensor:
    return sum((out.square().mean() for out in outs), torch.zeros(()))


def assert_close(got: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def differ(got: Iterable[Tensor], expected: Iterable[Tensor]) -> bool:
    return any((a - b).norm() > 1e-5 * b.norm() for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize('options', [dict(training=False), dict(training=True), dict(training=True, with_cp=True)])
def test_every_adapter_trains(small_backbone: Build, options: dict[str, Any]) -> None:
    training = options.pop('training')
    model = small_backbone(**options)
    adapters = replace(model, nn.Linear, LoRA)
    loss(model.train(training)(torch.randn(SIZE))).backward()
    assert [a.up.weight.grad is not None and bool(a.up.weight.grad.any()) for a in adapters] == [True] * len(adapters)
    options['training'] = training


@pytest.mark.parametrize('name', SMALL_BACKBONES)
def test_every_adapter_of_mmpretrain_trains(name: str) -> None:
    from mmpretrain.models import LoRAModel

    linear = layers_of(build_small(name), nn.Linear)
    targets = [dict(type=re.escape(layer)) for layer in linear]
    model = LoRAModel(dict(SMALL_BACKBONES[name]), alpha=4, rank=2, targets=targets)
    ups = {key: p for key, p in model.named_parameters() if 'lora_up' in key}
    for parameter in ups.values():
        nn.init.normal_(parameter)
    loss(model(torch.randn(SIZE))).backward()
    assert len(ups) == len(linear)
    assert [key for key, p in ups.items() if not p.grad.any()] == []


def test_dynamic_quantization_changes_every_linear_layer(small_backbone: Build) -> None:
    model, x = small_backbone().eval(), torch.randn(SIZE)
    quantized = quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    replaced = [layer for name, layer in quantized.named_modules() if name in layers_of(model, nn.Linear)]
    called: Counter[nn.Module] = Counter()
    for layer in replaced:
        assert type(layer) is torch.ao.nn.quantized.dynamic.Linear
        layer.register_forward_hook(lambda layer, *_: called.update([layer]))
    with torch.no_grad():
        outs, expected = quantized(x), model(x)
    assert all(called[layer] == 1 for layer in replaced)
    assert differ(outs, expected)
    assert all(out.isfinite().all() for out in outs)


@pytest.mark.parametrize('normalize', [weight_norm, parametrizations.weight_norm])
def test_weight_norm_keeps_the_outputs_and_trains(small_backbone: Build, normalize: Callable[[Any], Any]) -> None:
    model, x = with_offsets(small_backbone()).eval(), torch.randn(SIZE)
    expected, plain = model(x), {id(p) for p in model.parameters()}
    for layer in layers_of(model).values():
        normalize(layer)
    outs = model(x)
    assert_close(outs, expected)
    loss(outs).backward()
    new = {name: p for name, p in model.named_parameters() if id(p) not in plain}
    assert len(new) == 2 * len(layers_of(model))
    assert [name for name, p in new.items() if p.grad is None or not p.grad.any()] == []


def test_pruning_acts_before_it_is_made_permanent(small_backbone: Build) -> None:
    model, x = with_offsets(small_backbone()).eval(), torch.randn(SIZE)
    with torch.no_grad():
        dense = model(x)
        for layer in layers_of(model).values():
            prune.identity(layer, 'weight')
        assert_close(model(x), dense)
        for layer in layers_of(model).values():
            prune.l1_unstructured(layer, 'weight', 0.5)
        pruned = model(x)
        for layer in layers_of(model).values():
            prune.remove(layer, 'weight')
        assert_close(pruned, model(x))
    assert differ(pruned, dense)


@pytest.mark.parametrize('training', [False, True])
def test_hooks_of_every_layer_run_once(small_backbone: Build, training: bool) -> None:
    model = with_offsets(small_backbone()).train(training)
    called: Counter[str] = Counter()
    leaves = layers_of(model, (nn.Linear, nn.Conv2d, nn.LayerNorm))
    for name, layer in leaves.items():
        layer.register_forward_pre_hook(lambda *_, name=name: called.update([f'before {name}']))
        layer.register_forward_hook(lambda *_, name=name: called.update([f'after {name}']))
    outs = model(torch.randn(SIZE))
    assert called == Counter(f'{when} {name}' for when in ('before', 'after') for name in leaves)
    linear = layers_of(model, nn.Linear)
    for name, layer in linear.items():
        layer.register_full_backward_hook(lambda *_, name=name: called.update([f'backward {name}']))
    del outs
    loss(model(torch.randn(SIZE))).backward()
    assert [name for name in linear if called[f'backward {name}'] != 1] == []


def test_wrapped_layers_change_nothing(small_backbone: Build) -> None:
    for options in (dict(), dict(output_stride=16)):
        model, x = with_offsets(small_backbone(**options)).eval(), torch.randn(2, 3, 75, 107)
        expected = model(x)
        replace(model, (nn.Linear, nn.Conv2d, nn.LayerNorm), Wrapper)
        assert_close(model(x), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_wrapped_layers_in_half_precision(small_backbone: Build, dtype: torch.dtype) -> None:
    model, x = with_offsets(small_backbone()).eval().to(dtype), torch.randn(SIZE, dtype=dtype)
    with torch.no_grad():
        expected = model(x)
        replace(model, (nn.Linear, nn.Conv2d, nn.LayerNorm), Wrapper)
        for got, plain in zip(model(x), expected, strict=True):
            assert got.dtype == dtype
            assert (got.float() - plain.float()).norm() < 0.02 * plain.float().norm()


@pytest.mark.filterwarnings('ignore:.*torch.jit.*:DeprecationWarning')
@pytest.mark.filterwarnings('error::torch.jit.TracerWarning')
def test_a_traced_model_with_adapters_is_right_at_other_sizes(small_backbone: Build) -> None:
    model = with_offsets(small_backbone()).eval()
    replace(model, nn.Linear, LoRA)
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.randn(SIZE), check_trace=False)
        for x in (torch.randn(2, 3, 75, 107), torch.randn(1, 3, 32, 33)):
            for a, b in zip(traced(x), model(x), strict=True):
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures('_fresh_dynamo')
@pytest.mark.parametrize(('name', 'wrap'), [('DPT', parametrizations.weight_norm), ('DAT', LoRA)])
def test_a_compiled_model_with_wrapped_layers_computes_the_same(name: str, wrap: Callable[[Any], nn.Module]) -> None:
    model, x = with_offsets(build_small(name)), torch.randn(SIZE)
    replace(model, nn.Linear, wrap)
    compiled, results = torch.compile(model, backend='aot_eager', fullgraph=True), []
    for function in (model, compiled):
        model.zero_grad()
        outs = function(x)
        loss(outs).backward()
        results.append((*outs, *(p.grad for p in model.parameters())))
    assert_close(*results)


def test_state_dicts_of_wrapped_models_load(small_backbone: Build) -> None:
    for wrap in (partial(replace, kinds=nn.Linear, wrap=LoRA), partial(replace, kinds=nn.Linear, wrap=weight_norm)):
        first, second = with_offsets(small_backbone()).eval(), with_offsets(small_backbone()).eval()
        wrap(first)
        wrap(second)
        assert not any(second.load_state_dict(first.state_dict()))
        x = torch.randn(SIZE)
        assert_close(second(x), first(x))


def test_copies_compute_the_same(small_backbone: Build) -> None:
    model, x, file = with_offsets(small_backbone()).eval(), torch.randn(SIZE), io.BytesIO()
    replace(model, nn.Linear, LoRA)
    torch.save(model, file)
    file.seek(0)
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)
    with torch.no_grad():
        expected = model(x)
        for twin in copies:
            assert all(torch.equal(a, b) for a, b in zip(twin(x), expected, strict=True))
