"""The setting that chooses the operators' way."""

import subprocess
import sys
from importlib import import_module

import pytest
import torch
from mmengine.registry import MODELS
from running import ENVIRONMENT, ROOT

from deformable_vit.ops import current_path, deformable_attention, use_path

SMALL = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 2, 1), num_heads=(1, 2, 3, 4), mlp_ratios=(2, 2, 2, 2))
BACKBONES = {
    'PVT': dict(type='PVT', arch=dict(SMALL, sr_ratios=(4, 2, 1, 1))),
    'PVTv2': dict(type='PVTv2', arch=dict(SMALL, sr_ratios=(4, 2, 1, 1), linear=True)),
    'DPT': dict(type='DPT', arch=dict(SMALL, sr_ratios=(4, 2, 1, 1), points=(0, 3, 3, 3))),
    'DAT': dict(type='DAT', arch=dict(SMALL, like='tiny', groups=(1, 1, 3, 2), blocks=('L', 'LS', 'LD', 'D'))),
    'DAT++': dict(type='DAT', arch=dict(SMALL, like='tiny++', groups=(1, 1, 3, 2), blocks=('N', 'ND', 'ND', 'D'))),
}


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError('a fast way was taken')


@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', BACKBONES)
def test_backbones_by_reference(name: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same function, and nothing of it by a fast operator."""
    model = MODELS.build(dict(BACKBONES[name], pretrain_img_size=64))
    x = torch.randn(2, 3, 75, 107)
    tolerance = dict(rtol=1e-4, atol=1e-4) if precision == torch.float32 else dict(rtol=0.1, atol=0.1)
    with torch.no_grad(), torch.autocast('cpu', precision, enabled=precision != torch.float32):
        fast = model(x)
        monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', forbidden)
        monkeypatch.setattr(import_module('deformable_vit.ops.deform_conv'), 'sample_and_project', forbidden)
        with use_path('reference'):
            slow = model(x)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize('name', BACKBONES)
def test_half_precision_throughout(name: str) -> None:
    """Weights and pictures in bfloat16, without autocast; coordinates stay in float32."""
    model = MODELS.build(dict(BACKBONES[name], pretrain_img_size=64)).bfloat16()
    x = torch.randn(1, 3, 64, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        fast = model(x)
        with use_path('reference'):
            slow = model(x)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.2)


@pytest.mark.parametrize('path', ['reference', 'products'])
def test_checkpointed_blocks_are_repeated_the_same_way(path: str) -> None:
    """Also where backward comes after the context."""
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = MODELS.build(dict(BACKBONES['DAT'], pretrain_img_size=64, with_cp=with_cp))
        with use_path(path):
            out = model(torch.ones(1, 3, 64, 64))[-1]
        out.square().sum().backward()
        gradients.append([p.grad for p in model.stages.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(('path', 'function'), [('blocks', 'by_blocks'), ('products', 'by_matrix_products')])
@pytest.mark.parametrize('block', [1, 2**30])
def test_a_fast_way_by_name(path: str, function: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the map."""
    module, called = import_module('deformable_vit.ops.deformable_attention'), []
    monkeypatch.setattr(module, '_BLOCK', block)
    for name in ('by_blocks', 'by_matrix_products'):
        monkeypatch.setattr(module, name, lambda *_, name=name: called.append(name))
    q = torch.zeros(1, 2, 4, 8)
    with use_path(path):
        deformable_attention(q, q, q, torch.zeros(2, 3, 3), torch.zeros(1, 1, 4, 2), torch.zeros(2), torch.zeros(2))
    assert called == [function]


def test_the_setting_ends_with_its_context() -> None:
    assert current_path() == 'auto'
    with use_path('blocks'):
        assert current_path() == 'blocks'
    assert current_path() == 'auto'
    with pytest.raises(ValueError, match="path must be one of auto, reference, blocks, products, got 'fast'"):
        use_path('fast').__enter__()


@pytest.mark.parametrize(('value', 'path'), [('reference', 'reference'), ('', 'auto')])
def test_environment_variable(value: str, path: str) -> None:
    code = 'from deformable_vit.ops import current_path; print(current_path())'
    env = ENVIRONMENT | {'DEFORMABLE_VIT_PATH': value}
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == path


def test_wrong_environment_variable_of_a_tool() -> None:
    env = ENVIRONMENT | {'DEFORMABLE_VIT_PATH': 'slow'}
    command = [sys.executable, ROOT / 'tools' / 'learn.py', '--list']
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    wanted = "learn.py: error: DEFORMABLE_VIT_PATH must be one of auto, reference, blocks, products, got 'slow'"
    assert done.stderr.strip() == wanted
