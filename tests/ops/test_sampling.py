"""Deformable sampling and projection against the reference implementation: values and gradients, per dtype."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from devices import DEVICES, LOWER_PRECISIONS, assert_same_function, within_cells
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from deformable_vit.ops import (
    decode_boxes,
    deformable_patch_projection,
    deformable_patch_samples,
    deformable_sampling,
    key_coordinates,
    key_grid,
    key_spacing,
    query_coordinates,
    reference,
)
from deformable_vit.ops.sampling import deform_conv_at

BACKENDS = ('grid_sample', 'mmcv')
sizes = st.tuples(st.integers(1, 17), st.integers(1, 17))
small_sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 2**16)


def patch_inputs() -> list[Tensor]:
    """Boxes that also reach outside the feature map of 8 x 12; 5 channels to 6.

    Their corners are whole pairs of pixels apart, so that their centers are within cells, too.
    """
    size = torch.tensor([12, 8, 12, 8]).view(4, 1, 1)
    corner = within_cells(8, (2, 2, 4, 6)) - 1
    boxes = torch.cat([corner, corner + 2 * torch.randint(0, 3, corner.shape)], dim=1)
    return [torch.randn(2, 5, 8, 12), (boxes + 0.5) / size, torch.randn(6, 5, 3, 3), torch.randn(6)]


def key_inputs(groups: int = 2) -> list[Tensor]:
    """Locations up to a pixel outside the feature map of 5 x 9."""
    index = torch.stack([within_cells(n, (2, groups, 3, 4)) - 1 for n in (5, 9)], dim=-1)
    return [torch.randn(2, 8, 5, 9), index / torch.tensor([2, 4]) - 1]


OPS: dict[str, tuple[Callable[..., Tensor], Callable[[], list[Tensor]], tuple[str, ...]]] = {
    'deformable_patch_projection': (deformable_patch_projection, patch_inputs, BACKENDS),
    'deformable_sampling': (deformable_sampling, key_inputs, ('grid_sample',)),
}


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('name', OPS)
def test_lower_precision_is_close_to_reference(name: str, device: str) -> None:
    op, inputs, backends = OPS[name]
    for precision in LOWER_PRECISIONS:
        for backend in backends:
            function = partial(op, backend=backend)
            assert_same_function(function, getattr(reference, name), inputs(), precision, device, exact=(1,))


@settings(max_examples=30)
@given(seeds, sizes, small_sizes, st.sampled_from([1, 2, 4]))
@example(0, (1, 1), (1, 1), 2)
@example(0, (6, 1), (3, 1), 2)
@example(0, (2, 3), (4, 4), 2)
def test_sampling_equals_reference(seed: int, size: tuple[int, int], keys: tuple[int, int], groups: int) -> None:
    """Locations up to a quarter outside the feature map."""
    torch.manual_seed(seed)
    inputs = [torch.randn(2, 8, *size), torch.rand(2, groups, *keys, 2) * 2.5 - 1.25]
    assert_same_function(partial(deformable_sampling, backend='grid_sample'), reference.deformable_sampling, inputs)


def test_samples_by_hand() -> None:
    """Two groups of one channel on a map of 2 x 3 pixels: between pixels, and half a pixel outside."""
    x = torch.tensor([[[0.0, 1, 2], [3, 4, 5]], [[0, 10, 20], [30, 40, 50]]])[None]
    locations = torch.tensor([[[-1.0, 0.5], [0.0, -1.0]], [[1.0, 1.0], [1.0, 1.5]]])[None, :, None]
    for backend in ('reference', 'grid_sample'):
        samples = deformable_sampling(x, locations, backend)
        torch.testing.assert_close(samples, torch.tensor([[[1.5, 50.0], [1.5, 25.0]]]))


@settings(max_examples=30)
@given(seeds, st.sampled_from(BACKENDS), sizes, small_sizes, st.integers(1, 4))
@example(0, 'grid_sample', (1, 1), (1, 1), 3)
@example(0, 'mmcv', (2, 9), (1, 4), 3)
def test_patch_projection_equals_reference(
    seed: int, backend: str, size: tuple[int, int], grid: tuple[int, int], k: int
) -> None:
    """Boxes that also reach outside the feature map."""
    torch.manual_seed(seed)
    boxes = torch.rand(2, 4, *grid) * 1.4 - 0.2
    inputs = [torch.randn(2, 3, *size), boxes, torch.randn(5, 3, k, k), torch.randn(5)]
    function = partial(deformable_patch_projection, backend=backend)
    assert_same_function(function, reference.deformable_patch_projection, inputs)


def test_patch_samples_are_what_the_projection_reads() -> None:
    x, boxes, weight, bias = (t.double() for t in patch_inputs())
    samples = deformable_patch_samples(x, boxes, 3)
    # By location, x-major, then by channel.
    projected = samples @ weight.permute(3, 2, 1, 0).flatten(0, 2) + bias
    expected = deformable_patch_projection(x, boxes, weight, bias, 'reference')
    torch.testing.assert_close(projected.transpose(1, 2), expected.flatten(2))


@pytest.mark.parametrize('name', OPS)
def test_gradients_are_numerically_right(name: str) -> None:
    op, inputs, backends = OPS[name]
    args = [t.double().requires_grad_() for t in inputs()]
    for backend in backends:
        assert torch.autograd.gradcheck(partial(op, backend=backend), args, fast_mode=True)


def test_mmcv_op_works_with_autograd_and_compile() -> None:
    x, locations, weight = torch.randn(2, 4, 5, 6), torch.rand(2, 1, 2, 3, 3) * 5, torch.randn(3, 4, 1, 1)
    args = [t.requires_grad_() for t in (x, (locations - 2).flatten(1, 2).detach(), weight)]
    torch.library.opcheck(torch.ops.deformable_vit.deform_conv.default, (*args, [2, 2]))
    torch._dynamo.reset()
    compiled = torch.compile(deform_conv_at, backend='aot_eager', fullgraph=True)
    expected = deform_conv_at(x, locations, weight, 'grid_sample')
    torch.testing.assert_close(compiled(x, locations, weight, 'mmcv'), expected)


def test_boxes_decode_to_values_by_hand() -> None:
    """Two patches side by side, of a 1 x 2 grid."""
    offsets = torch.tensor([[0.0, 20.0], [0.0, -0.5], [20.0, 0.2], [-9.0, 0.0]])[None, :, None]
    bias = torch.tensor([0.0, 0.3])
    boxes = decode_boxes(offsets, bias)[0, :, 0].T
    # The first: not shifted, half a width of 0.5 to each side clamped at the left border, and no height.
    torch.testing.assert_close(boxes[0], torch.tensor([0.0, 0.5, 0.75, 0.5]))
    # The second: shifted right by a width, to x = 1.25, beyond the border, and up by tanh(0.5).
    y, half = 0.5 - torch.tensor(0.5).tanh(), torch.tensor(0.3).tanh()
    left = 1.25 - torch.tensor(0.2).tanh() * 0.5
    expected = torch.stack([left.clamp(max=1), y - half, torch.tensor(1.0), y + half]).clamp(0, 1)
    torch.testing.assert_close(boxes[1], expected)


def test_coordinates_have_values_by_hand() -> None:
    like = torch.empty(0)
    torch.testing.assert_close(query_coordinates(4, 'centers', like), torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    torch.testing.assert_close(key_coordinates(2, 'centers', like), torch.tensor([-0.5, 0.5]))
    torch.testing.assert_close(query_coordinates(3, 'corners', like), torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(key_coordinates(3, 'corners', like), torch.tensor([-0.5, 0.5, 1.5]))
    torch.testing.assert_close(key_spacing(4, 5, 'centers', like), torch.tensor([1 / 4, 1 / 5]))
    torch.testing.assert_close(key_spacing(4, 5, 'corners', like), torch.tensor([1 / 3, 1 / 4]))
    torch.testing.assert_close(key_grid(2, 1, 'centers', like), torch.tensor([[[-0.5, 0.0]], [[0.5, 0.0]]]))


def test_axis_of_one_pixel_is_at_zero() -> None:
    like = torch.empty(0)
    for convention in ('centers', 'corners'):
        assert query_coordinates(1, convention, like).tolist() == key_coordinates(1, convention, like).tolist() == [0]
        assert key_grid(1, 3, convention, like).isfinite().all()
        assert key_spacing(1, 3, convention, like).isfinite().all()


def test_coordinates_are_float32_for_half_precision_inputs() -> None:
    assert query_coordinates(2, 'centers', torch.empty(0, dtype=torch.bfloat16)).dtype == torch.float32
    assert query_coordinates(2, 'centers', torch.empty(0, dtype=torch.float64)).dtype == torch.float64


def test_locations_stay_float32_under_autocast() -> None:
    """bfloat16 locations would miss half the pixels of a wide feature map."""
    x = torch.arange(1024.0)[None, None, None].expand(1, 2, 1, -1)
    locations = torch.stack([torch.zeros(512), torch.linspace(-1, 1, 512)], dim=-1)[None, None, None]
    for backend in ('reference', 'grid_sample'):
        exact = deformable_sampling(x, locations, backend)
        with torch.autocast('cpu', torch.bfloat16):
            half = deformable_sampling(x, locations, backend)
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half, exact.bfloat16())
