"""Backbones of ``torch.jit.trace``, ``torch.export`` and ``torch.onnx``, run at sizes other than the recorded one."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime
import pytest
import torch
from small_models import SMALL_BACKBONES, build_small
from torch import Tensor, nn
from torch.fx.experimental.dynamic_spec import ParamsSpec, ShapeVar, TensorSpec

from deformable_vit.backbones import PyramidBackbone

Build = Callable[..., PyramidBackbone]
pytestmark = [
    pytest.mark.filterwarnings('ignore:.*torch.jit.*:DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:.*torch.jit.*:FutureWarning'),
    # Each names a size that would become a constant.
    pytest.mark.filterwarnings('error::torch.jit.TracerWarning'),
]
OTHER_SIZES = ((2, 75, 107), (1, 32, 32), (1, 32, 33), (1, 160, 40))
# Those with most kinds of ops; the others are exported by ``make test-all``.
BUILT = [
    name if name in ('DPT', 'DAT++') else pytest.param(name, marks=pytest.mark.nightly) for name in SMALL_BACKBONES
]


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
@pytest.mark.parametrize('name', BUILT)
@pytest.mark.filterwarnings('ignore')  # of the exporter
def test_an_onnx_file_is_right_at_other_sizes(name: str, tmp_path: Path) -> None:
    model, file = build_small(name).eval(), tmp_path / 'model.onnx'
    shapes = ({0: 'batch', 2: 'height', 3: 'width'},)
    image = torch.randn(2, 3, 64, 96)  # torch.onnx takes a size of 1 for a constant
    torch.onnx.export(model, (image,), file, opset_version=20, input_names=['image'], dynamic_shapes=shapes)
    session = onnxruntime.InferenceSession(file)
    for batch, h, w in OTHER_SIZES:
        assert_same_outputs(
            lambda x: [torch.from_numpy(y) for y in session.run(None, {'image': x.numpy()})],
            model,
            torch.randn(batch, 3, h, w),
        )


@pytest.mark.slow
@pytest.mark.parametrize('name', BUILT)
def test_an_exported_backbone_is_right_at_other_sizes(name: str) -> None:
    model = build_small(name).eval()
    sizes = [ShapeVar('batch', min=1), 3, ShapeVar('height', min=32), ShapeVar('width', min=32)]
    exported = torch.export.export(
        model, (torch.randn(1, 3, 64, 64),), dynamic_shapes=ParamsSpec({'x': TensorSpec(sizes)})
    )
    for batch, h, w in OTHER_SIZES:
        assert_same_outputs(exported.module(), model, torch.randn(batch, 3, h, w))
    with pytest.raises(AssertionError, match='32'):
        exported.module()(torch.randn(1, 3, 31, 64))


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
