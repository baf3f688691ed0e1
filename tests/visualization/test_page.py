"""The page in a headless Chromium: what it computes, shows and changes. Skipped where there is no Chromium."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from attention_page import click, recording_of
from browser import CHROMIUM, Browser

from deformable_vit.visualization import Affine, AttentionLayer, PointsLayer, Recording, View, build_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine: the page is not tested')
Open = Callable[..., Browser]


def text_of(browser: Browser, element: str) -> str:
    return browser.js(f'document.getElementById("{element}").textContent')


def marks(browser: Browser, key: str) -> list[tuple[float, ...]]:
    return sorted(tuple(found) for found in browser.js(f'viewer.drawn.marks.map((m) => [...m.{key}])'))


def check_attention(browser: Browser, recording: Recording) -> None:
    """Assert that the attention in an open page is that of the recorded layers."""
    for i, layer in enumerate(recording.layers):
        if isinstance(layer, AttentionLayer):
            for query in (0, layer.query_index(77, 41), int(np.prod(layer.query_grid)) - 1):
                call = f'viewer.attention(viewer.layer({i}), {query})'
                weights, keys = browser.js(f'[{call}].map((a) => [[...a.weights], a.keys])[0]')
                assert keys == layer.keys_of(query).tolist()
                expected = layer.attention(query)[:, 0, layer.extra + np.array(keys)]
                found = np.array(weights).reshape(layer.heads, -1)
                assert np.abs(found - expected).max() <= 1e-2 * expected.max(), layer.name


def test_attention_in_the_page_is_that_of_torch(show: Open, recording: Recording) -> None:
    browser = show()
    check_attention(browser, recording)
    for i, layer in enumerate(recording.layers):
        for x, y in ((0, 0), (159, 95), (77.3, 40.2)):
            index = browser.js(f'viewer.queryIndex(viewer.layer({i}), [{x}, {y}])')
            assert index == layer.query_index(x, y)
            position = browser.js(f'[...viewer.page.layers[{i}].queries.subarray(2 * {index}, 2 * {index} + 2)]')
            np.testing.assert_allclose(position, layer.query_position(index), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('cells', [(2, 6), (6, 2)])
def test_attention_on_an_axis_of_one_pixel(cells: tuple[int, int], show: Open) -> None:
    """On the one row of stage 4 at 32 x 96 pixels, all y of locations are the same pixel, and biases differ."""
    recording = recording_of('DAT', 'DAT++', cells=cells)
    assert 1 in recording.layers[-1].query_grid
    check_attention(show(recording), recording)


def test_a_click_draws_the_strongest_locations_of_the_query(show: Open, recording: Recording) -> None:
    browser, i = show(), [layer.kind for layer in recording.layers].index('deformable')
    layer = recording.layers[i]
    assert isinstance(layer, AttentionLayer)
    browser.js(f'viewer.set({{layer: {i}, top: 5}})')
    browser.js('viewer.set({head: 0})')
    click(browser, 100, 50)
    query = layer.query_index(100, 50)
    strongest = np.argsort(layer.attention(query)[0, 0])[-5:]
    np.testing.assert_allclose(marks(browser, 'at'), sorted(layer.locations[0, strongest].tolist()), atol=1e-3)
    np.testing.assert_allclose(marks(browser, 'from'), sorted(layer.reference[strongest].tolist()), atol=1e-3)
    np.testing.assert_allclose(browser.js('viewer.drawn.at'), layer.query_position(query), atol=1e-3)
    assert text_of(browser, 'caption').startswith('Attention of the query at (')


def test_controls_select_every_layer_head_and_group(show: Open, recording: Recording) -> None:
    def choose(control: str, value: object) -> None:
        browser.js(f'Object.assign($("{control}"), {{value: "{value}"}}).onchange({{target: $("{control}")}})')

    browser = show()
    browser.js('window.$ = (id) => document.getElementById(id), 0')
    for i, layer in enumerate(recording.layers):
        choose('stage', layer.stage)
        choose('block', i)
        assert browser.js('viewer.state.layer') == i
        assert f'Module {layer.name};' in text_of(browser, 'caption')
        before = browser.js('viewer.drawn.marks.map((m) => m.weight)')
        if layer.heads > 1:
            choose('head', 1)
            assert f'head 2 of {layer.heads}' in text_of(browser, 'caption')
            assert browser.js('viewer.drawn.marks.map((m) => m.weight)') != before
        if 1 < layer.groups < layer.heads:
            choose('group', 0)
            assert 'mean over the heads of group 1' in text_of(browser, 'caption')
            assert browser.js('viewer.state.head') is None
        assert 'NaN' not in text_of(browser, 'caption') + text_of(browser, 'legend')


def test_zoom_keeps_the_pixel_under_the_pointer(show: Open) -> None:
    browser, queries = show(), []
    for scroll in (0, -700):
        browser('Input.dispatchMouseEvent', type='mouseWheel', x=300, y=200, deltaX=0, deltaY=scroll)
        browser.click(300, 200)
        queries.append(browser.js('viewer.state.query'))
    np.testing.assert_allclose(*queries, atol=0.1)  # the pointer moves by whole pixels
    assert browser.js('viewer.view.scale > 2 * viewer.view.fit')
    browser.js('document.getElementById("zoom-fit").click()')
    assert browser.js('viewer.view.scale === viewer.view.fit')


def test_object_queries_are_chosen_by_clicks(show: Open, recording: Recording) -> None:
    decoder, i = recording.layers[-1], len(recording.layers) - 1
    assert isinstance(decoder, PointsLayer)
    browser = show(view=View(i, recording.default_query()))
    assert 'object query 2 of 3: dog 0.90' in text_of(browser, 'caption')  # the most confident one
    click(browser, 22, 28)
    assert 'object query 1 of 3: cat 0.20' in text_of(browser, 'caption')
    np.testing.assert_allclose(marks(browser, 'at'), sorted(decoder.locations[0].reshape(-1, 2).tolist()), atol=1e-3)


def test_predictions_are_laid_over_the_image(show: Open, recording: Recording) -> None:
    assert recording.image is not None
    green = np.zeros_like(recording.image)
    green[:, :40, 1] = 255
    browser = show(drawn=green)
    corner = '[...document.getElementById("canvas").getContext("2d").getImageData(9, 9, 1, 1).data]'
    browser.js('viewer.set({predictions: true})')
    red, color, blue, _ = browser.js(corner)
    assert color > 4 * max(red, blue)


def test_page_is_one_file_without_network(recording: Recording) -> None:
    text = build_page(recording, View.of(recording), 'one file', names=['cat', 'dog'])
    assert re.findall(r'(?:src|href)="([^"]*)"', text) == ['data:,']
    assert not re.search(r'\bfetch\(|XMLHttpRequest|import\(|https?://', text)


def test_blocks_that_do_not_fit_are_left_out(recording: Recording, show: Open) -> None:
    names = ['cat', 'dog']
    assert len(build_page(recording, View.of(recording), 'small', names=names, max_bytes=460_000)) < 700_000
    browser = show(max_bytes=460_000)
    held, first = browser.js('viewer.page.layers.map((l) => l.name)'), View.of(recording).layer
    assert 1 < len(held) < len(recording.layers)
    assert browser.js('viewer.layer(viewer.state.layer).name') == recording.layers[first].name
    assert f'leaves out {len(recording.layers) - len(held)} blocks' in browser.js('document.body.textContent')
    browser = show(max_bytes=0, keep=(0, 3))
    assert browser.js('viewer.page.layers.map((l) => l.name)') == [
        recording.layers[i].name for i in sorted({0, 3, first})
    ]


@pytest.mark.slow
def test_a_click_at_full_size_answers_within_100_ms(show: Open) -> None:
    """Stage 3 of DAT-T at 800 x 1333: 4200 queries, 3 x 4200 sampling locations and 12 heads; here random numbers."""
    random, (h, w), to_image = np.random.default_rng(0), (50, 84), Affine((16, 16), (7.5, 7.5))
    grid = np.stack(np.mgrid[:h, :w], axis=-1).reshape(-1, 2)  # (y, x)
    keys = grid + random.normal(0, 0.5, (3, h * w, 2))
    layer = AttentionLayer(
        kind='deformable',
        stage=3,
        block=6,
        name='stages.2.blocks.5.attn',
        query_grid=(h, w),
        to_image=to_image,
        heads=12,
        groups=3,
        q=random.normal(0, 0.3, (12, h * w, 32)).astype(np.float32),
        k=random.normal(0, 1, (12, h * w, 32)).astype(np.float32),
        key_grid=(h, w),
        reference=to_image(grid[:, ::-1]),
        locations=to_image(keys[..., ::-1]),
        table=random.normal(0, 1, (12, 27, 27)).astype(np.float32),
        table_keys=(keys / [h, w] * 13).astype(np.float32),
        table_queries=(np.linspace(0, 13, h), np.linspace(0, 13, w)),
    )
    image = random.integers(0, 255, (800, 1333, 3)).astype(np.uint8)
    browser = show(Recording((800, 1333), (-0.5, -0.5, 1332.5, 799.5), [layer], image=image))
    # From the click to the frame after the one that shows the answer, which is what the user waits for.
    browser.js("""document.getElementById('canvas').addEventListener('pointerup', (e) => {
      requestAnimationFrame(() => requestAnimationFrame((now) => (viewer.painted = now - e.timeStamp)));
    }, true)""")
    times = []
    for i in range(8):
        browser.js('viewer.painted = 0')
        click(browser, 100 + 140 * i, 60 + 80 * i)
        browser.wait('viewer.painted')
        times.append(round(browser.js('viewer.painted')))
        index = browser.js('viewer.queryIndex(viewer.layer(0), viewer.state.query)')
        assert index == layer.query_index(100 + 140 * i, 60 + 80 * i)
    print(f'milliseconds from click to frame: {sorted(times)}')
    assert sorted(times)[len(times) // 2] <= 100
