"""What the backbones would ask of a GPU: run on fake CUDA tensors, which have shapes and no values."""

from typing import Any

import pytest
import torch
from small_models import SMALL_BACKBONES, build_small
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deformable_vit.backbones.pvt import PVT


class OtherDevices(TorchDispatchMode):
    """Record the ops that read or write tensors outside the GPU; fake tensors cannot compute ``grid_sample``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if 'grid_sampler' in func.name():
            return args[0].new_empty(*args[0].shape[:2], *args[1].shape[1:3])
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        self.found += [func.name()] if any(t.device.type != 'cuda' for t in tensors) else []
        return out


def forward(model: torch.nn.Module) -> list[str]:
    """Return the ops outside the GPU; an op whose shape depends on values is an error."""
    with FakeTensorMode(allow_non_fake_inputs=True), OtherDevices() as devices:
        model.to_empty(device='cuda')
        devices.found.clear()
        outs = model(torch.empty(2, 3, 80, 96, device='cuda'))
    assert {out.device.type for out in outs} == {'cuda'}
    return devices.found


@pytest.mark.parametrize('name', SMALL_BACKBONES)
def test_forward_never_waits_for_the_gpu(name: str) -> None:
    """A copy from or to the CPU, or a value that Python reads, would wait for all kernels that are queued."""
    assert forward(build_small(name).train()) == []


def test_a_copy_from_the_cpu_and_a_read_value_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PVT.forward

    def copying(self: PVT, x: Tensor) -> tuple[Tensor, ...]:
        return whole(self, x * torch.tensor([2.0], device=x.device))

    def reading(self: PVT, x: Tensor) -> tuple[Tensor, ...]:
        return whole(self, x * x.max().item())

    monkeypatch.setattr(PVT, 'forward', copying)
    assert 'aten::_to_copy' in forward(build_small('PVT'))
    monkeypatch.setattr(PVT, 'forward', reading)
    with pytest.raises(RuntimeError, match='_local_scalar_dense'):
        forward(build_small('PVT'))
