"""Properties of the ops for random sizes, strides, groups, window sizes and dtypes (hypothesis)."""

from collections.abc import Callable
from functools import partial

import torch
from devices import assert_same_function
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from deformable_vit.ops import (
    decode_boxes,
    deformable_attention,
    deformable_key_value,
    deformable_patch_projection,
    key_grid,
    map_to_tokens,
    neighborhood_attention,
    pad_to_multiple,
    query_coordinates,
    reference,
    resize_position_embedding,
    tokens_to_map,
    window_attention,
)
from deformable_vit.ops.local_attention import neighborhood_runs, surplus_pairs, window_runs

# No deadline: the first call of an op is slower than the others.
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])
sizes = st.tuples(st.integers(1, 17), st.integers(1, 17))
seeds = st.integers(0, 2**16)
conventions = st.sampled_from(['centers', 'corners'])


def check(
    function: Callable[..., Tensor],
    expected: Callable[..., Tensor],
    inputs: list[Tensor],
    dtype: torch.dtype,
    exact: tuple[int, ...] = (),
) -> None:
    assert_same_function(function, expected, inputs, dtype, 'cpu', exact)


@quick
@given(seeds, dtypes, sizes, st.integers(1, 3), st.integers(2, 9), st.data())
def test_window_attention_equals_reference(
    seed: int, dtype: torch.dtype, size: tuple[int, int], batch: int, window: int, data: st.DataObject
) -> None:
    shift = data.draw(st.integers(0, window - 1))
    torch.manual_seed(seed)
    inputs = [*torch.randn(3, batch, 2, *size, 4), torch.randn(2, 2 * window - 1, 2 * window - 1)]
    check(partial(window_attention, shift=shift), partial(reference.window_attention, shift=shift), inputs, dtype)


@quick
@given(seeds, dtypes, sizes, st.integers(1, 2), st.sampled_from([1, 3, 5, 7, 9]))
def test_neighborhood_attention_equals_reference(
    seed: int, dtype: torch.dtype, size: tuple[int, int], batch: int, kernel: int
) -> None:
    torch.manual_seed(seed)
    inputs = [*torch.randn(3, batch, 2, *size, 4), torch.randn(2, 2 * kernel - 1, 2 * kernel - 1)]
    check(neighborhood_attention, reference.neighborhood_attention, inputs, dtype)


@quick
@given(
    seeds,
    dtypes,
    st.sampled_from(['chunked', 'separable']),
    conventions,
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from([(4, 1), (4, 2), (4, 4), (6, 3)]),
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
)
def test_deformable_attention_equals_reference(
    seed: int,
    dtype: torch.dtype,
    backend: str,
    convention: str,
    size: tuple[int, int],
    keys: tuple[int, int],
    heads_and_groups: tuple[int, int],
    table: tuple[int, int],
) -> None:
    torch.manual_seed(seed)
    (h, w), n, (heads, groups) = size, keys[0] * keys[1], heads_and_groups
    like = torch.empty(0)
    locations = key_grid(*keys, convention, like).flatten(0, 1) + torch.randn(1, groups, n, 2) * 0.3
    inputs = [
        torch.randn(1, heads, h * w, 4),
        *torch.randn(2, 1, heads, n, 4),
        torch.randn(heads, *table),
        locations,
        query_coordinates(h, convention, like),
        query_coordinates(w, convention, like),
    ]
    # Gradients jump where a displacement passes a table entry; float32 may fall on the other side.
    for axis, queries in ((0, inputs[5]), (1, inputs[6])):
        index = ((queries[:, None] - locations[..., axis].flatten()) / 2 + 1) / 2 * (table[axis] - 1)
        assume(table[axis] == 1 or (index - index.round()).abs().min() > 1e-4)
    check(partial(deformable_attention, backend=backend), reference.deformable_attention, inputs, dtype, (4, 5, 6))


@quick
@given(
    seeds,
    dtypes,
    st.sampled_from(['grid_sample', 'mmcv']),
    sizes,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([1, 2, 4]),
)
def test_key_value_equals_reference(
    seed: int, dtype: torch.dtype, backend: str, size: tuple[int, int], keys: tuple[int, int], groups: int
) -> None:
    torch.manual_seed(seed)
    locations = torch.rand(2, groups, *keys, 2) * 2.5 - 1.25
    inputs = [torch.randn(2, 8, *size), locations, torch.randn(6, 8), torch.randn(6)]
    pixels = (locations + 1) / 2 * (torch.tensor(size) - 1)
    for axis in (0, 1):  # the gradient jumps at pixel centers
        distance = (pixels - pixels.round())[..., axis].abs().min()
        assume(size[axis] == 1 or distance > 1e-4)
    check(partial(deformable_key_value, backend=backend), reference.deformable_key_value, inputs, dtype, (1,))


@quick
@given(
    seeds,
    dtypes,
    st.sampled_from(['grid_sample', 'mmcv']),
    sizes,
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 4),
)
def test_patch_projection_equals_reference(
    seed: int, dtype: torch.dtype, backend: str, size: tuple[int, int], grid: tuple[int, int], k: int
) -> None:
    torch.manual_seed(seed)
    boxes = torch.rand(2, 4, *grid) * 1.4 - 0.2
    inputs = [torch.randn(2, 3, *size), boxes, torch.randn(5, 3, k, k), torch.randn(5)]
    steps = torch.linspace(0, 1, k)[:, None, None, None, None]
    corners = boxes.unflatten(1, (2, 2))  # (B, 2 corners, xy, H', W')
    pixels = (corners[:, 0] + (corners[:, 1] - corners[:, 0]) * steps) * torch.tensor(size[::-1])[:, None, None] - 0.5
    assume((pixels - pixels.round()).abs().min() > 1e-4)
    function = partial(deformable_patch_projection, backend=backend)
    check(function, reference.deformable_patch_projection, inputs, dtype, (1,))


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 19))
def test_windows_cover_an_axis_once(n: int, window: int, shift: int) -> None:
    covered = [
        pixel
        for run in window_runs(n, window, min(shift, window - 1))
        for tile in range(run.tiles)
        for pixel in range(run.start + tile * run.size, run.start + (tile + 1) * run.size)
    ]
    assert covered == list(range(n))


@given(st.integers(1, 300), st.sampled_from([1, 3, 5, 7, 9, 13]))
def test_tiles_cover_an_axis_once_and_contain_their_neighborhoods(n: int, kernel: int) -> None:
    covered = []
    for run in neighborhood_runs(n, kernel):
        for tile in range(run.tiles):
            start, key = run.start + tile * run.size, run.key + tile * run.size
            for query in range(start, start + run.size):
                first = min(max(query - kernel // 2, 0), max(n - kernel, 0))
                assert key <= first
                assert min(first + kernel, n) <= key + run.span <= n
                covered.append(query)
    assert covered == list(range(n))
    assert surplus_pairs((n, 1), kernel) >= 0


@given(seeds, st.integers(1, 64), st.integers(1, 64))
def test_boxes_are_ordered_and_inside_the_feature_map(seed: int, h: int, w: int) -> None:
    torch.manual_seed(seed)
    x0, y0, x1, y1 = decode_boxes(torch.randn(1, 4, h, w) * 5, torch.randn(2)).unbind(1)
    assert ((x0 >= 0) & (x0 <= x1) & (x1 <= 1) & (y0 >= 0) & (y0 <= y1) & (y1 <= 1)).all()


@given(seeds, sizes, st.integers(1, 9))
def test_padding_is_minimal_and_zero(seed: int, size: tuple[int, int], multiple: int) -> None:
    torch.manual_seed(seed)
    x = torch.rand(1, 2, *size) + 1
    padded = pad_to_multiple(x, multiple)
    assert all(n % multiple == 0 and n - old < multiple for n, old in zip(padded.shape[2:], size, strict=True))
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    assert padded.count_nonzero() == x.numel()


@given(seeds, sizes)
def test_tokens_round_trip(seed: int, size: tuple[int, int]) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 3, *size)
    assert torch.equal(tokens_to_map(map_to_tokens(x), size), x)


@quick
@given(sizes, sizes, st.integers(0, 2))
def test_resizing_keeps_a_constant_position_embedding(
    source: tuple[int, int], target: tuple[int, int], extra: int
) -> None:
    embedding = torch.full((1, extra + source[0] * source[1], 3), 0.5)
    resized = resize_position_embedding(embedding, source, target, extra)
    assert resized.shape == (1, extra + target[0] * target[1], 3)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.5))
