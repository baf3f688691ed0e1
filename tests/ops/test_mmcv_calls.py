"""What mmcv's kernels are called with: their sources read memory by pointers, with the strides of contiguous tensors.

A fake extension records the arguments, so that this holds for CUDA without a GPU. The conditions are those of
mmcv/ops/csrc/pytorch/deform_conv.cpp and cuda/deform_conv_cuda.cu of mmcv 2.1.0.
"""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from deformable_vit.ops import deformable_patch_projection, sampling

# The tensors that the C++ functions take, in order.
SIGNATURES = {
    'deform_conv_forward': 'input weight offset output columns ones',
    'deform_conv_backward_input': 'input offset output grad_input grad_offset weight columns',
    'deform_conv_backward_parameters': 'input offset output grad_weight columns ones',
}


class Recorder:
    """Stand in for mmcv's extension: check each call, and keep its number of images at a time by function."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return partial(self.call, name)

    def call(self, name: str, *args: Tensor, **sizes: int) -> None:
        """Assert what the kernels take for granted."""
        self.steps[name] = sizes['im2col_step']
        assert all(t.is_contiguous() and t.dtype == args[0].dtype for t in args)
        assert args[0].dtype in (torch.float64, torch.float32)  # there is no bfloat16, and float16 loses pixels
        tensors = dict(zip(SIGNATURES[name].split(), args, strict=True))
        x, offset, out = tensors['input'], tensors['offset'], tensors['output']
        assert len(x) % sizes['im2col_step'] == 0
        kernel, strides = (sizes['kH'], sizes['kW']), (sizes['dH'], sizes['dW'])
        grid = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, strides, strict=True)]
        assert [*out.shape] == [len(x), 5, *grid]
        assert [*offset.shape] == [len(x), 2 * kernel[0] * kernel[1], *grid]
        weight = tensors.get('weight', tensors.get('grad_weight'))
        assert weight is not None
        assert tuple(weight.shape) == (5, x.shape[1], *kernel)
        assert (sizes['padH'], sizes['padW'], sizes['dilationH'], sizes['dilationW']) == (0, 0, 1, 1)
        for argument in ('input', 'offset', 'weight'):
            if f'grad_{argument}' in tensors:
                gradient = tensors[f'grad_{argument}']
                assert gradient.shape == (weight if argument == 'weight' else tensors[argument]).shape
                assert not gradient.any()  # the kernels add to it


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(sampling, '_mmcv_ops', lambda: found)
    return found


@pytest.mark.parametrize('precision', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_kernels_get_contiguous_tensors_of_one_dtype(recorder: Recorder, precision: torch.dtype) -> None:
    """From channels-last features, and boxes, weights and gradients with other strides."""
    wide = torch.promote_types(precision, torch.float32)
    for batch, step in ((1, 1), (6, 6), (33, 11), (37, 1)):
        x = torch.randn(batch, 4, 9, 12, dtype=precision).to(memory_format=torch.channels_last).requires_grad_()
        boxes = torch.rand(batch, 3, 4, 4, dtype=wide).permute(0, 3, 1, 2).requires_grad_()
        weight = torch.randn(3, 3, 4, 5, dtype=wide).permute(3, 2, 0, 1).requires_grad_()
        with torch.autocast('cpu', precision, enabled=precision != wide):
            out = deformable_patch_projection(x, boxes, weight, torch.zeros(5, dtype=wide), backend='mmcv')
        torch.autograd.grad(out, (x, boxes, weight), torch.ones_like(out[:1, :1, :1, :1]).expand_as(out))
        assert recorder.steps == dict.fromkeys(SIGNATURES, step)


def test_a_map_smaller_than_the_grid_is_padded(recorder: Recorder) -> None:
    x, boxes = torch.randn(2, 3, 1, 2), torch.rand(2, 4, 3, 5)
    deformable_patch_projection(x, boxes, torch.randn(5, 3, 2, 2), torch.zeros(5), backend='mmcv')
    assert recorder.steps == dict(deform_conv_forward=2)
