"""Backbones recorded by ``torch.jit.trace`` and exported to ONNX, run at sizes other than the recorded one."""

import io
from collections.abc import Callable, Sequence

import onnxruntime
import pytest
import torch
from small_models import build_small
from torch import Tensor, nn

from deformable_vit.backbones import PyramidBackbone

Build = Callable[..., PyramidBackbone]
pytestmark = [
    pytest.mark.filterwarnings('ignore:.*torch.jit.*:DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:.*torch.jit.*:FutureWarning'),
    # Each names a size that would become a constant.
    pytest.mark.filterwarnings('error::torch.jit.TracerWarning'),
]
OTHER_SIZES = ((2, 75, 107), (1, 32, 33), (1, 160, 40))


def assert_same_outputs(recorded: Callable[[Tensor], Sequence[Tensor]], model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        for got, expected in zip(recorded(x), model(x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_traced_backbone_is_right_at_other_sizes(small_backbone: Build) -> None:
    model = small_backbone().eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.randn(1, 3, 64, 96), check_trace=False)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for batch, h, w in OTHER_SIZES:
        assert_same_outputs(loaded, model, torch.randn(batch, 3, h, w))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.*TorchScript-based ONNX export:DeprecationWarning')
def test_an_onnx_file_is_right_at_other_sizes(small_backbone: Build) -> None:
    model = small_backbone().eval()
    file = io.BytesIO()
    axes = {'image': {0: 'batch', 2: 'height', 3: 'width'}}
    torch.onnx.export(
        model, torch.randn(1, 3, 64, 96), file, dynamo=False, opset_version=18, input_names=['image'], dynamic_axes=axes
    )
    session = onnxruntime.InferenceSession(file.getvalue())
    for batch, h, w in OTHER_SIZES:
        assert_same_outputs(
            lambda x: [torch.from_numpy(y) for y in session.run(None, {'image': x.numpy()})],
            model,
            torch.randn(batch, 3, h, w),
        )


def test_traced_variants() -> None:
    """With gradients, which recompute a part."""
    for name, arguments in (
        ('DAT', dict(output_stride=16)),
        ('DAT++', dict(output_stride=16)),
        ('PVT', dict(out_type='cls_token')),
        ('DPT', dict(out_type='cls_token')),
    ):
        model = build_small(name, **arguments).eval()
        traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64), check_trace=False)
        for batch, h, w in OTHER_SIZES:
            assert_same_outputs(traced, model, torch.randn(batch, 3, h, w))


def test_models_in_half_precision_can_be_traced(small_backbone: Build) -> None:
    model = small_backbone().eval().to(torch.bfloat16)
    with torch.no_grad():
        traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64).bfloat16(), check_trace=False)
        x = torch.randn(2, 3, 75, 107).bfloat16()
        for got, expected in zip(traced(x), model(x), strict=True):
            assert (got - expected).float().norm() < 0.05 * expected.float().norm()


def test_images_that_are_too_small_are_refused_while_tracing() -> None:
    with pytest.raises(ValueError, match='at least 32 x 32 pixels, got height x width 31 x 64'):
        torch.jit.trace(build_small('DAT'), torch.randn(1, 3, 31, 64), check_trace=False)


@pytest.mark.nightly
def test_an_exported_backbone_computes_the_same(small_backbone: Build) -> None:
    """By ``torch.export``, for one input size."""
    backbone, image = small_backbone().eval(), torch.rand(1, 3, 64, 96)
    exported = torch.export.export(backbone, (image,)).module()
    with torch.no_grad():
        for found, expected in zip(exported(image), backbone(image), strict=True):
            torch.testing.assert_close(found, expected)
