"""The page in a headless Chromium: what it computes, draws and saves. Skipped where there is no Chromium."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attention_page import click, index_of, recording_of
from browser import CHROMIUM, Browser

from deformable_vit.visualization import (
    Affine,
    AttentionLayer,
    DeformableLayer,
    LocalLayer,
    PageInfo,
    PointsLayer,
    Recording,
    build_page,
)
from deformable_vit.visualization.heat import received_map
from deformable_vit.visualization.modes import modes_of
from deformable_vit.visualization.page import SCRIPTS, SOURCES

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine: the page is not tested')


def check_attention(browser: Browser, recording: Recording) -> None:
    """Assert that the attention in an open page is that of the recorded layers."""
    for i, layer in enumerate(recording.layers):
        if not isinstance(layer, AttentionLayer):
            continue
        for query in (0, layer.query_index(77, 41), int(np.prod(layer.query_grid)) - 1):
            call = f'viewer.attention(viewer.page.layers[{i}], {query})'
            weights, keys = browser.js(f'[{call}].map((a) => [[...a.weights], a.keys])[0]')
            expected = layer.attention(query)[:, 0]
            if isinstance(layer, LocalLayer):
                assert keys == layer.attention_in_window(query)[0].tolist()
                expected = expected[:, keys]
            found = np.array(weights).reshape(layer.heads, -1)
            assert np.abs(found - expected).max() <= 1e-2 * expected.max(), layer.name


def test_attention_in_the_page_is_that_of_torch(opened: Browser, recording: Recording) -> None:
    check_attention(opened, recording)
    for i, layer in enumerate(recording.layers):
        if isinstance(layer, DeformableLayer):
            found = opened.js(f'[...viewer.locations(viewer.page.layers[{i}])]')
            np.testing.assert_allclose(found, layer.locations.ravel(), atol=1e-3)


@pytest.mark.parametrize('cells', [(2, 6), (6, 2)])
def test_attention_on_an_axis_of_one_pixel(cells: tuple[int, int], browser: Browser, tmp_path: Path) -> None:
    """On the one row of stage 4 at 32 x 96 pixels, all y of locations are the same pixel, and biases differ."""
    recording = recording_of('DAT', 'DAT++', cells=cells)
    assert 1 in recording.layers[-1].query_grid
    (tmp_path / 'page.html').write_text(build_page(recording, PageInfo('narrow')), encoding='utf-8')
    browser.open(tmp_path / 'page.html')
    check_attention(browser, recording)


def test_queries_of_the_page_are_those_of_the_recording(opened: Browser, recording: Recording) -> None:
    for i, layer in enumerate(recording.layers):
        if isinstance(layer, PointsLayer):
            continue
        for x, y in ((0, 0), (159, 95), (77.3, 40.2), (80, 13)):
            index = opened.js(f'viewer.queryIndex(viewer.page.layers[{i}], {x}, {y})')
            assert index == layer.query_index(x, y)
            position = opened.js(f'viewer.queryPosition(viewer.page.layers[{i}], {index})')
            np.testing.assert_allclose(position, layer.query_position(index), rtol=1e-5, atol=1e-4)


def test_half_precision_is_decoded(opened: Browser) -> None:
    values = np.array([0, -0.0, 1, -2.5, 65504, 6e-8, 5e-5, 0.1, np.inf], dtype='<f2')

    text = base64.b64encode(values.tobytes()).decode()
    found = opened.js(f'[...viewer.decode("{text}", "f16")].map(String)')
    assert [float(v.replace('Infinity', 'inf')) for v in found] == values.astype(float).tolist()


def test_a_click_draws_the_strongest_locations_of_the_query(opened: Browser, recording: Recording) -> None:
    i = index_of(recording, 'deformable', last=False)
    layer = recording.layers[i]
    assert isinstance(layer, DeformableLayer)
    opened.js(f'viewer.set({{layer: {i}, top: 5, head: 0}})')
    click(opened, 100, 50)
    shapes = opened.js('viewer.build().shapes.filter((s) => s.type !== "image")')
    query = layer.query_index(100, 50)
    circles = [(s['x'], s['y']) for s in shapes if s['type'] == 'circle']
    strongest = np.argsort(layer.attention(query)[0, 0])[-5:]
    np.testing.assert_allclose(sorted(circles), sorted(layer.locations[0, strongest].tolist()), atol=1e-3)
    (star,) = (s for s in shapes if s['type'] == 'star')
    np.testing.assert_allclose((star['x'], star['y']), layer.query_position(query), atol=1e-3)
    starts = [(s['x1'], s['y1']) for s in shapes if s['type'] == 'arrow']
    np.testing.assert_allclose(sorted(starts), sorted(layer.reference[strongest].tolist()), atol=1e-3)
    radii = [s['r'] for s in shapes if s['type'] == 'circle']
    assert radii == sorted(radii)
    assert opened.js('document.getElementById("caption").textContent').startswith('Attention of the query at (')


def test_received_attention_is_that_of_figures(opened: Browser, recording: Recording) -> None:
    for i, layer in enumerate(recording.layers):
        if not isinstance(layer, AttentionLayer):
            continue
        per_group, last = layer.heads // layer.groups, layer.groups - 1
        for head, group, groups in (
            ('"all"', '"all"', {g: range(g * per_group, (g + 1) * per_group) for g in range(layer.groups)}),
            ('"all"', last, {last: range(last * per_group, layer.heads)}),
            (layer.heads - 1, '"all"', {last: [layer.heads - 1]}),
        ):
            state = f'{{head: {head}, group: {group}}}'
            values, *size = opened.js(
                f'[viewer.receivedMap(viewer.page.layers[{i}], {state})].map((m) => [[...m.values], m.h, m.w])[0]'
            )
            found = np.array(values, dtype=float).reshape(size)  # JSON has null for NaN
            np.testing.assert_allclose(found, received_map(layer, groups), rtol=2e-3, atol=2e-3)


def test_modes_of_the_page_are_those_of_the_table(opened: Browser, recording: Recording) -> None:
    for i, layer in enumerate(recording.layers):
        found = opened.js(f'[viewer.page.layers[{i}]].flatMap((l) => [Object.keys(viewer.modes[l.kind]), l.modes])')
        assert found == [list(modes_of(layer))] * 2


def test_page_shows_the_object_of_the_query_first(recording: Recording, browser: Browser, tmp_path: Path) -> None:
    decoder = recording.layers[-1]
    assert isinstance(decoder, PointsLayer)
    for query in ((22, 28), (139, 20), None):
        info = PageInfo('page', query=query, layer=len(recording.layers) - 1)
        (tmp_path / 'page.html').write_text(build_page(recording, info), encoding='utf-8')
        browser.open(tmp_path / 'page.html')
        assert browser.js('viewer.state.object') == decoder.query_index(*(query or recording.default_query()))
        assert browser.js('viewer.state.level') == 0
    with pytest.raises(ValueError, match='deformable_detr has no mode .locations.; choose from query, received'):
        build_page(recording, replace(info, mode='locations'))


def test_decoder_that_does_not_fit_says_how_to_add_it(recording: Recording, browser: Browser, tmp_path: Path) -> None:
    decoder = len(recording.layers) - 1
    for keep, words in (((0,), '--blocks adds them'), ((decoder,), 'Sampling locations of object query')):
        text = build_page(recording, PageInfo('page', layer=decoder), max_bytes=0, keep=keep)
        (tmp_path / 'page.html').write_text(text, encoding='utf-8')
        browser.open(tmp_path / 'page.html')
        assert words in browser.js('viewer.drawn.text')


def test_clamped_locations_are_marked(opened: Browser, recording: Recording) -> None:
    i = index_of(recording, 'deformable')  # of DAT++
    layer = recording.layers[i]
    assert isinstance(layer, DeformableLayer)
    opened.js(f'viewer.set({{layer: {i}, top: 1000}})')
    dashed = opened.js('viewer.build().shapes.filter((s) => s.dash).map((s) => [s.x, s.y])')
    assert 0 < layer.border.sum() < layer.border.size
    np.testing.assert_allclose(sorted(map(tuple, dashed)), sorted(map(tuple, layer.locations[layer.border])), atol=1e-3)
    assert 'border of the feature map' in opened.js('document.getElementById("legend").textContent')
    assert '”' + ' (DAT++), clamped to the feature map.' in opened.js('document.getElementById("caption").textContent')
    opened.js('viewer.layer().clamped = false, viewer.draw()')
    assert 'clamped' not in opened.js('document.getElementById("caption").textContent')


def test_windows_of_the_page_are_those_of_the_model(opened: Browser, recording: Recording) -> None:
    for kind in ('window', 'shifted_window', 'neighborhood'):
        i = index_of(recording, kind)
        layer = recording.layers[i]
        assert isinstance(layer, LocalLayer)
        for axis in (0, 1):
            n = layer.query_grid[axis]
            spans = opened.js(f'Array.from({{length: {n}}}, (_, j) => viewer.span(viewer.page.layers[{i}], j, {n}))')
            assert spans == layer.spans(axis).tolist()


def test_page_is_one_file_without_network(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', re.sub(r'<script.*?</script>', '', text, flags=re.S))
    assert [a or b for a, b in links] == ['data:,']
    scripts = '\n'.join((SOURCES / name).read_text() for name in SCRIPTS)
    assert not re.search(r'\bfetch\(|XMLHttpRequest|import\(|https?://(?!www\.w3\.org)', scripts)


def test_blocks_that_do_not_fit_say_so(recording: Recording, browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / 'small.html'
    limit = 260_000
    text = build_page(recording, PageInfo('small'), max_bytes=limit)
    assert len(text) < limit + 100_000
    file.write_text(text, encoding='utf-8')
    browser.resize(1280, 900)
    browser.open(file)
    held = browser.js('viewer.page.layers.map((l) => l.held)')
    assert set(held) == {True, False}  # some fit
    i = held.index(False)
    browser.js(f'viewer.set({{layer: {i}, mode: "query"}})')
    assert 'does not hold' in browser.js('viewer.drawn.text')


def test_a_click_at_full_size_answers_within_100_ms(browser: Browser, tmp_path: Path) -> None:
    """Stage 3 of DAT-T at 800 x 1333: 4200 queries, 3 x 4200 sampling locations and 12 heads; here random numbers."""
    random, (h, w) = np.random.default_rng(0), (50, 84)
    to_image = Affine((16, 16), (7.5, 7.5))
    y, x = np.mgrid[:h, :w]
    reference = to_image(np.stack([x, y], axis=-1).reshape(-1, 2))
    locations = (reference + random.normal(0, 8, (3, h * w, 2))).astype(np.float32)
    normalized = (to_image.inverse(locations) / [w - 1, h - 1] * 2 - 1)[..., ::-1].astype(np.float32)
    layer = DeformableLayer(
        kind='deformable',
        stage=3,
        block=6,
        name='stages.2.blocks.5.attn',
        query_grid=(h, w),
        to_image=to_image,
        q=random.normal(0, 0.3, (12, h * w, 32)).astype(np.float32),
        k=random.normal(0, 1, (12, h * w, 32)).astype(np.float32),
        key_grid=(h, w),
        groups=3,
        normalized=normalized.copy(),
        query_y=np.linspace(-1, 1, h, dtype=np.float32),
        query_x=np.linspace(-1, 1, w, dtype=np.float32),
        table=random.normal(0, 1, (12, 27, 27)).astype(np.float32),
        reference=reference,
        locations=locations,
        border=np.zeros((3, h * w), dtype=bool),
        convention='centers',
    )
    image = random.integers(0, 255, (800, 1333, 3)).astype(np.uint8)
    layer.received = lambda: np.ones((12, h * w), dtype=np.float32)  # type: ignore[method-assign]
    recording = Recording((800, 1333), (-0.5, -0.5, 1332.5, 799.5), (-0.5, -0.5, 1343.5, 799.5), (800, 1344), [layer])
    recording.image = image
    file = tmp_path / 'page.html'
    file.write_text(build_page(recording, PageInfo('DAT-T')), encoding='utf-8')
    browser.resize(1280, 900)
    browser.open(file)
    # From the click to the frame after the one that shows the answer, which is what the user waits for.
    browser.js("""document.getElementById('canvas').addEventListener('pointerup', (e) => {
      requestAnimationFrame(() => requestAnimationFrame((now) => (viewer.painted = now - e.timeStamp)));
    }, true)""")
    times, drawing = [], []
    for i in range(8):
        browser.js('viewer.painted = 0')
        click(browser, 100 + 140 * i, 60 + 80 * i)
        browser.wait('viewer.painted')
        times.append(round(browser.js('viewer.painted')))
        drawing.append(round(browser.js('viewer.drawn.milliseconds')))
        assert browser.js('viewer.queryIndex(viewer.layer(), ...viewer.state.query)') == layer.query_index(
            100 + 140 * i, 60 + 80 * i
        )
    print(
        f'{len(file.read_text()) / 1e6:.1f} MB, milliseconds from click to frame: {sorted(times)}; drawing: {drawing}'
    )
    assert sorted(times)[len(times) // 2] <= 100
