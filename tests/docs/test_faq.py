"""docs/faq.md: what it says about export and tracing."""

from pathlib import Path

import pytest
import torch
from pages import inline_code, read, table
from small_models import build_small

from deformable_vit import PVT
from deformable_vit.checkpoints import compare

PAGE = Path('docs/faq.md')
ROWS = {inline_code(row[0])[0]: row[1:] for row in table(PAGE, 'tool')}
TYPES = {'PVT': 0, 'PVTv2': 0, 'DPT': 0, 'DAT': 1, 'DAT++': 1}


def documented(what: str, name: str) -> bool:
    return ROWS[what][TYPES[name]].startswith('yes')


def agree(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.allclose(x, y, atol=1e-4, rtol=1e-4) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize('name', TYPES)
@torch.no_grad()
def test_export_and_trace(name: str) -> None:
    backbone, x = build_small(name).eval(), torch.randn(1, 3, 64, 96)
    assert documented('torch.export', name)
    assert agree(torch.export.export(backbone, (x,)).module()(x), backbone(x))
    assert documented('torch.jit.trace', name)
    traced, other = torch.jit.trace(backbone, x, check_trace=False), torch.randn(2, 3, 75, 107)
    assert agree(traced(other), backbone(other))


@pytest.mark.parametrize('name', TYPES)
def test_neither_script_nor_fx(name: str) -> None:
    assert not documented('torch.jit.script', name)
    backbone = build_small(name).eval()
    with pytest.raises((RuntimeError, torch.jit.frontend.NotSupportedError)):
        torch.jit.script(backbone)
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.symbolic_trace(backbone)


def test_log_of_a_loaded_checkpoint() -> None:
    with torch.device('meta'):
        state_dict = PVT('tiny').state_dict()
    assert f'PVT from pvt_tiny.pth: {compare(state_dict, state_dict)}\n' in read(PAGE)
