"""The deformable operators against their slow forms: values and gradients, per precision, also at awkward places."""

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from devices import DEVICES, assert_same_function
from torch import Tensor
from torch._subclasses import FakeTensorMode

from deformable_vit.ops import (
    decode_boxes,
    deformable_attention,
    deformable_key_value,
    deformable_patch_projection,
    key_coordinates,
    key_grid,
    key_spacing,
    mmcv_deform_conv,
    query_coordinates,
    reference,
    sample_and_project,
)

# Functions of the same names hide the modules.
ATTENTION = import_module('deformable_vit.ops.deformable_attention')
BIASED = import_module('deformable_vit.ops.biased_attention')
each_device = pytest.mark.parametrize('device', DEVICES)
each_precision = pytest.mark.parametrize(
    'precision', [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)


def patch_case(
    batch: int, size: tuple[int, int], grid: tuple[int, int], k: int = 3, spread: float = 0.3
) -> list[Tensor]:
    """Boxes that also reach outside the map; 5 channels to 6."""
    boxes = torch.rand(batch, 4, *grid) * (1 + 2 * spread) - spread
    return [torch.randn(batch, 5, *size), boxes, torch.randn(6, 5, k, k), torch.randn(6)]


def key_case(batch: int, size: tuple[int, int], grid: tuple[int, int], groups: int) -> list[Tensor]:
    """Points up to a quarter outside the map; 8 channels to 6."""
    points = torch.rand(batch, groups, *grid, 2) * 2.5 - 1.25
    return [torch.randn(batch, 8, *size), points, torch.randn(6, 8), torch.randn(6)]


def attention_case(batch: int, size: tuple[int, int], keys: int, groups: int, table: tuple[int, int]) -> list[Tensor]:
    """4 heads of 8 channels."""
    h, w = size
    q = torch.randn(batch, 4, h * w, 8)
    k, v = torch.randn(2, batch, 4, keys, 8)
    points = torch.rand(batch, groups, keys, 2) * 2.2 - 1.1
    like = torch.empty(0, dtype=torch.float64)
    axes = [query_coordinates(n, 'centers', like).float() for n in size]
    return [q, k, v, torch.randn(4, *table), points, *axes]


PATCH_CASES = {
    'even': (2, (8, 12), (4, 6)),
    'one picture': (1, (6, 6), (3, 3)),
    'one patch': (1, (2, 2), (1, 1)),
    'one pixel': (2, (1, 1), (1, 1)),
    'one row': (1, (2, 9), (1, 4)),
    'four points': (1, (8, 8), (2, 2), 4),
    'one point': (1, (4, 4), (2, 2), 1),
}
KEY_CASES = {
    'all pixels': (2, (5, 7), (5, 7), 2),
    'one group': (1, (6, 6), (6, 6), 1),
    'strided': (1, (9, 14), (2, 4), 4),
    'does not divide': (1, (8, 8), (5, 3), 2),
    'more than pixels': (1, (2, 3), (4, 4), 2),
    'one pixel': (3, (1, 1), (1, 1), 2),
    'one column': (1, (6, 1), (3, 1), 2),
}
ATTENTION_CASES = {
    'square': (1, (4, 4), 16, 2, (7, 7)),
    'batch': (3, (3, 5), 6, 4, (5, 9)),
    'one group': (2, (2, 3), 4, 1, (3, 3)),
    'table larger than the map': (1, (2, 2), 4, 2, (13, 13)),
    'one pixel': (1, (1, 1), 1, 2, (1, 1)),
}


@pytest.fixture(params=[mmcv_deform_conv, sample_and_project], ids=['mmcv', 'torch'])
def each_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to read at points, whatever device they are meant for."""
    for path in ('mmcv_deform_conv', 'sample_and_project'):
        monkeypatch.setattr(import_module('deformable_vit.ops.deform_conv'), path, request.param)


@pytest.mark.usefixtures('each_path')
@each_device
@each_precision
@pytest.mark.parametrize('case', PATCH_CASES)
def test_patch_projection(case: str, precision: torch.dtype, device: str) -> None:
    args = patch_case(*PATCH_CASES[case])
    assert_same_function(
        deformable_patch_projection, reference.deformable_patch_projection, args, precision, device, exact=(1,)
    )


@pytest.mark.usefixtures('each_path')
@each_device
@each_precision
@pytest.mark.parametrize('case', KEY_CASES)
def test_key_value(case: str, precision: torch.dtype, device: str) -> None:
    args = key_case(*KEY_CASES[case])
    assert_same_function(deformable_key_value, reference.deformable_key_value, args, precision, device, exact=(1,))


@pytest.fixture(params=['by_matrix_products', 'by_blocks'])
def each_attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to attend, whatever device they are meant for."""
    path = getattr(ATTENTION, request.param)
    for name in ('by_matrix_products', 'by_blocks'):
        monkeypatch.setattr(ATTENTION, name, path)


def limit_blocks(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """At most so many numbers of a matrix of scores or weights at a time."""
    monkeypatch.setattr(ATTENTION, '_BLOCK', limit)
    monkeypatch.setattr(BIASED, '_SCORES', limit)


@pytest.mark.usefixtures('each_attention')
@each_device
@each_precision
@pytest.mark.parametrize('block', [2**24, 1, 40])
@pytest.mark.parametrize('case', ATTENTION_CASES)
def test_attention(case: str, block: int, precision: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_blocks(monkeypatch, block)
    args = attention_case(*ATTENTION_CASES[case])
    assert_same_function(deformable_attention, reference.deformable_attention, args, precision, device, exact=(4, 5, 6))


@pytest.mark.parametrize(('block', 'path'), [(4 * 16 * 16, 'by_blocks'), (4 * 16 * 16 - 1, 'by_matrix_products')])
def test_path_on_the_cpu(block: int, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole where the scores fit one block, by products of matrices where they do not."""
    monkeypatch.setattr(ATTENTION, '_BLOCK', block)
    called = []
    for name in ('by_matrix_products', 'by_blocks'):
        monkeypatch.setattr(ATTENTION, name, lambda *_, name=name: called.append(name))
    deformable_attention(*attention_case(*ATTENTION_CASES['square']))
    assert called == [path]


@pytest.mark.usefixtures('each_attention')
def test_backward_within_autocast() -> None:
    """As in a training loop that wraps all of its step."""
    args = [a.requires_grad_() for a in attention_case(*ATTENTION_CASES['batch'])]
    wanted = torch.autograd.grad(reference.deformable_attention(*args).sum(), args[:5])
    with torch.autocast('cpu', torch.bfloat16):
        q, k, v = (a.bfloat16() for a in args[:3])
        grads = torch.autograd.grad(deformable_attention(q, k, v, *args[3:]).float().sum(), args[:5])
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want, atol=0.05 * want.abs().max().item(), rtol=0.1)


@pytest.mark.usefixtures('each_attention')
@pytest.mark.parametrize('number', [torch.nan, torch.inf])
def test_what_is_not_a_number_is_handed_on(number: float) -> None:
    """Training's own checks look at the loss: no operator may stop before."""
    args = attention_case(*ATTENTION_CASES['batch'])
    args[4][0, 0, 0] = number
    out = deformable_attention(*args)
    assert not out[1:].isnan().any()
    if number != number:
        assert out[0, 0].isnan().all()


def test_strides_are_as_torch_compile_is_told() -> None:
    """Of the gradients too, whatever those of the arguments are."""
    q, k, v, table = attention_case(*ATTENTION_CASES['batch'])[:4]
    y, x = torch.rand(3, 4, 6, 3) * 4, torch.rand(3, 4, 6, 5) * 8
    args = [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in (q, k, v, table, y, x)]
    forward, backward = torch.ops.deformable_vit.biased_attention, torch.ops.deformable_vit.biased_attention_backward
    real = forward(*args)
    grads = backward(args[0], *args, *real)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = forward(*args)
        fake_grads = backward(args[0], *args, *real)
    for a, b in zip((*real, *grads), (*fake, *fake_grads), strict=True):
        assert a.stride() == b.stride()


@pytest.mark.usefixtures('each_attention')
def test_what_is_kept_for_backward_grows_with_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with their square: four times the queries and keys keep about four times the numbers."""
    limit_blocks(monkeypatch, 4096)
    kept = []
    for edge in (12, 24):
        saved: dict[int, int] = {}

        def keep(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        args = [a.requires_grad_() for a in attention_case(1, (edge, edge), edge**2, 2, (23, 23))]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            deformable_attention(*args)
        kept.append(sum(saved.values()))
    assert kept[1] < 5 * kept[0]


def test_slope_on_an_entry_is_that_of_grid_sample() -> None:
    """Where the derivative of linear interpolation jumps: on the entries, and one before and after the table."""
    table = torch.randn(5)
    places = torch.tensor([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 4.0, 4.5, 5.0], requires_grad=True)
    grid = torch.stack([places / 4 * 2 - 1, torch.zeros(10)], dim=-1)[None, None]
    read = torch.nn.functional.grid_sample(table.view(1, 1, 1, 5), grid, align_corners=True)[0, 0, 0]
    (slope,) = torch.autograd.grad(read.sum(), places)
    torch.testing.assert_close(BIASED.hat(places.detach(), 5) @ table, read)
    torch.testing.assert_close(BIASED.hat_slope(places.detach(), 5) @ table, slope)


def test_attention_without_bias() -> None:
    q, k, v, *_ = attention_case(2, (3, 4), 5, 2, (3, 3))
    torch.testing.assert_close(deformable_attention(q, k, v), reference.deformable_attention(q, k, v))


@pytest.mark.usefixtures('each_path', 'each_attention')
@pytest.mark.parametrize(
    ('function', 'args'),
    [
        (deformable_patch_projection, patch_case(1, (4, 6), (2, 3), 2)),
        (deformable_key_value, key_case(2, (3, 4), (2, 2), 2)),
        (deformable_attention, attention_case(1, (2, 3), 3, 2, (5, 5))),
    ],
    ids=['patch_projection', 'key_value', 'attention'],
)
def test_gradcheck(function: Callable, args: list[Tensor]) -> None:
    assert torch.autograd.gradcheck(function, [a.double().requires_grad_() for a in args])


def test_attention_is_an_operator_of_torch() -> None:
    q, k, v, table, *_ = attention_case(2, (3, 4), 5, 2, (3, 5))
    y, x = torch.rand(2, 2, 5, 3) * 4 - 1, torch.rand(2, 2, 5, 4) * 6 - 1
    args = [t.requires_grad_() for t in (q, k, v, table, y, x)]
    torch.library.opcheck(torch.ops.deformable_vit.biased_attention.default, args)


def test_operator_is_one_of_torch() -> None:
    x, positions, weight = torch.randn(2, 4, 5, 6), torch.rand(2, 2, 1, 2, 3, 3) * 5, torch.randn(3, 4, 1, 1)
    args = [t.requires_grad_() for t in (x, (positions - 2).flatten(1, 3).detach(), weight)]
    torch.library.opcheck(torch.ops.deformable_vit.deform_conv.default, (*args, [2, 2], 2))
    compiled = torch.compile(mmcv_deform_conv, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(compiled(x, positions, weight), sample_and_project(x, positions, weight))


@pytest.mark.usefixtures('each_attention')
def test_blocks_keep_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for backward does not grow with queries x keys."""
    limit_blocks(monkeypatch, 10000)
    args = [a.requires_grad_() for a in attention_case(1, (16, 16), 256, 2, (7, 7))]
    largest = 0

    def look(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        deformable_attention(*args)
    assert largest <= 4 * 256 * 8


def test_a_patch_at_rest_is_a_convolution() -> None:
    """Boxes whose outer points lie on the outer pixels of a patch: a plain strided convolution."""
    x, weight, bias = torch.randn(2, 3, 6, 8), torch.randn(5, 3, 2, 2), torch.randn(5)
    y = torch.arange(3)[:, None] * 2 + 0.5
    left = torch.arange(4) * 2 + 0.5
    boxes = torch.stack(
        [(left / 8).expand(3, 4), (y / 6).expand(3, 4), ((left + 1) / 8).expand(3, 4), ((y + 1) / 6).expand(3, 4)]
    )
    projected = deformable_patch_projection(x, boxes.expand(2, -1, -1, -1), weight, bias)
    torch.testing.assert_close(projected, torch.nn.functional.conv2d(x, weight, bias, stride=2), atol=1e-5, rtol=1e-5)


def test_boxes_by_hand() -> None:
    """Two patches side by side, of a 1 x 2 grid."""
    offsets = torch.tensor([[0.0, 20.0], [0.0, -0.5], [20.0, 0.2], [-9.0, 0.0]])[None, :, None]
    bias = torch.tensor([0.0, 0.3])
    boxes = decode_boxes(offsets, bias)[0, :, 0].T
    # The first: unmoved, half a width of 0.5 to each side cut at the left edge, and no height.
    torch.testing.assert_close(boxes[0], torch.tensor([0.0, 0.5, 0.75, 0.5]))
    # The second: moved right by a width, to x = 1.25, beyond the edge, and up by tanh(0.5).
    y, half = 0.5 - torch.tensor(0.5).tanh(), torch.tensor(0.3).tanh()
    left = 1.25 - torch.tensor(0.2).tanh() * 0.5
    torch.testing.assert_close(
        boxes[1], torch.stack([left.clamp(max=1), y - half, torch.tensor(1.0), y + half]).clamp(0, 1)
    )


def test_coordinates_by_hand() -> None:
    like = torch.empty(0)
    torch.testing.assert_close(query_coordinates(4, 'centers', like), torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    torch.testing.assert_close(key_coordinates(2, 'centers', like), torch.tensor([-0.5, 0.5]))
    torch.testing.assert_close(query_coordinates(3, 'corners', like), torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(key_coordinates(3, 'corners', like), torch.tensor([-0.5, 0.5, 1.5]))
    for convention in ('centers', 'corners'):
        assert query_coordinates(1, convention, like).tolist() == key_coordinates(1, convention, like).tolist() == [0]
        assert key_grid(1, 3, convention, like).isfinite().all()
        assert key_spacing(1, 3, convention, like).isfinite().all()
    torch.testing.assert_close(key_spacing(4, 5, 'centers', like), torch.tensor([1 / 4, 1 / 5]))
    torch.testing.assert_close(key_spacing(4, 5, 'corners', like), torch.tensor([1 / 3, 1 / 4]))
    torch.testing.assert_close(key_grid(2, 1, 'centers', like), torch.tensor([[[-0.5, 0.0]], [[0.5, 0.0]]]))
    assert query_coordinates(2, 'centers', torch.empty(0, dtype=torch.bfloat16)).dtype == torch.float32
    with pytest.raises(ValueError, match=r"must be one of .*got 'middle'"):
        query_coordinates(2, 'middle', like)


def test_coordinates_stay_precise_under_autocast() -> None:
    """Half the pixels of a wide map would be read at the wrong place if points were bfloat16."""
    x = torch.arange(1024.0)[None, None, None].expand(1, 2, 1, -1)
    points = torch.stack([torch.zeros(512), torch.linspace(-1, 1, 512)], dim=-1)[None, None, None]
    weight, bias = torch.eye(2), torch.zeros(2)
    exact = deformable_key_value(x, points, weight, bias)
    with torch.autocast('cpu', torch.bfloat16):
        half = deformable_key_value(x, points, weight, bias)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, exact.bfloat16())
