"""The ops of random sizes, strides, groups and window sizes equal their reference implementations in float64."""

from functools import partial

import torch
from devices import assert_same_function
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deformable_vit.ops import (
    decode_boxes,
    deformable_attention,
    deformable_key_value,
    deformable_patch_projection,
    key_grid,
    neighborhood_attention,
    pad_to_multiple,
    query_coordinates,
    reference,
    resize_position_embedding,
    window_attention,
)
from deformable_vit.ops.local_attention import neighborhood_runs, surplus_pairs, window_runs

quick = settings(max_examples=15)
sizes = st.tuples(st.integers(1, 17), st.integers(1, 17))
small_sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 2**16)


@quick
@given(seeds, sizes, st.integers(1, 3), st.integers(2, 9), st.integers(0, 8))
@example(0, (1, 1), 1, 7, 4)
@example(0, (15, 29), 2, 7, 4)
def test_window_attention(seed: int, size: tuple[int, int], batch: int, window: int, shift: int) -> None:
    torch.manual_seed(seed)
    inputs = [*torch.randn(3, batch, 2, *size, 4), torch.randn(2, 2 * window - 1, 2 * window - 1)]
    functions = (partial(f, shift=shift % window) for f in (window_attention, reference.window_attention))
    assert_same_function(*functions, inputs)


@quick
@given(seeds, sizes, st.integers(1, 2), st.sampled_from([1, 3, 5, 7, 13]))
@example(0, (3, 20), 2, 7)
@example(0, (22, 9), 1, 13)
def test_neighborhood_attention(seed: int, size: tuple[int, int], batch: int, kernel: int) -> None:
    torch.manual_seed(seed)
    inputs = [*torch.randn(3, batch, 2, *size, 4), torch.randn(2, 2 * kernel - 1, 2 * kernel - 1)]
    assert_same_function(neighborhood_attention, reference.neighborhood_attention, inputs)


@settings(max_examples=30)
@given(
    seed=seeds,
    backend=st.sampled_from(['auto', 'chunked', 'separable']),
    convention=st.sampled_from(['centers', 'corners']),
    size=small_sizes,
    keys=small_sizes,
    heads_and_groups=st.sampled_from([(4, 1), (4, 2), (4, 4), (6, 3)]),
    table=st.tuples(st.integers(1, 13), st.integers(1, 13)),
)
@example(0, 'chunked', 'centers', (1, 1), (1, 1), (4, 2), (1, 1))
@example(0, 'separable', 'centers', (1, 1), (1, 1), (4, 2), (1, 1))
def test_deformable_attention(
    seed: int,
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
    inputs = [
        torch.randn(2, heads, h * w, 4),
        *torch.randn(2, 2, heads, n, 4),
        torch.randn(heads, *table),
        key_grid(*keys, convention, like).flatten(0, 1) + torch.randn(2, groups, n, 2) * 0.3,
        query_coordinates(h, convention, like),
        query_coordinates(w, convention, like),
    ]
    assert_same_function(partial(deformable_attention, backend=backend), reference.deformable_attention, inputs)


@settings(max_examples=30)
@given(seeds, st.sampled_from(['grid_sample', 'mmcv']), sizes, small_sizes, st.sampled_from([1, 2, 4]))
@example(0, 'grid_sample', (1, 1), (1, 1), 2)
@example(0, 'mmcv', (6, 1), (3, 1), 2)
@example(0, 'mmcv', (2, 3), (4, 4), 2)
def test_key_value(seed: int, backend: str, size: tuple[int, int], keys: tuple[int, int], groups: int) -> None:
    """Locations up to a quarter outside the feature map."""
    torch.manual_seed(seed)
    locations = torch.rand(2, groups, *keys, 2) * 2.5 - 1.25
    inputs = [torch.randn(2, 8, *size), locations, torch.randn(6, 8), torch.randn(6)]
    assert_same_function(partial(deformable_key_value, backend=backend), reference.deformable_key_value, inputs)


@settings(max_examples=30)
@given(seeds, st.sampled_from(['grid_sample', 'mmcv']), sizes, small_sizes, st.integers(1, 4))
@example(0, 'grid_sample', (1, 1), (1, 1), 3)
@example(0, 'mmcv', (2, 9), (1, 4), 3)
def test_patch_projection(seed: int, backend: str, size: tuple[int, int], grid: tuple[int, int], k: int) -> None:
    """Boxes that also reach outside the feature map."""
    torch.manual_seed(seed)
    boxes = torch.rand(2, 4, *grid) * 1.4 - 0.2
    inputs = [torch.randn(2, 3, *size), boxes, torch.randn(5, 3, k, k), torch.randn(5)]
    function = partial(deformable_patch_projection, backend=backend)
    assert_same_function(function, reference.deformable_patch_projection, inputs)


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


@quick
@given(seeds, st.integers(1, 64), st.integers(1, 64))
def test_boxes_are_ordered_and_inside_the_feature_map(seed: int, h: int, w: int) -> None:
    torch.manual_seed(seed)
    x0, y0, x1, y1 = decode_boxes(torch.randn(1, 4, h, w) * 5, torch.randn(2)).unbind(1)
    assert ((x0 >= 0) & (x0 <= x1) & (x1 <= 1) & (y0 >= 0) & (y0 <= y1) & (y1 <= 1)).all()


@quick
@given(sizes, st.integers(1, 9))
def test_padding_is_minimal_and_zero(size: tuple[int, int], multiple: int) -> None:
    x = torch.rand(1, 2, *size) + 1
    padded = pad_to_multiple(x, multiple)
    assert all(n % multiple == 0 and n - old < multiple for n, old in zip(padded.shape[2:], size, strict=True))
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    assert padded.count_nonzero() == x.numel()


@quick
@given(sizes, sizes, st.integers(0, 2))
def test_resizing_keeps_a_constant_position_embedding(
    source: tuple[int, int], target: tuple[int, int], extra: int
) -> None:
    embedding = torch.full((1, extra + source[0] * source[1], 3), 0.5)
    resized = resize_position_embedding(embedding, source, target, extra)
    assert resized.shape == (1, extra + target[0] * target[1], 3)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.5))
