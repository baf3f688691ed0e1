"""The page in a headless Chromium: what it computes, draws and saves. Skipped where there is no Chromium."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser
from running import ROOT
from small_models import build_small
from test_recording import move_offsets

from deformable_vit.visualization import (
    Affine,
    AttentionLayer,
    DeformableLayer,
    LocalLayer,
    PageInfo,
    PointsLayer,
    Predictions,
    Recording,
    build_page,
    record,
)
from deformable_vit.visualization.page import SCRIPTS, SOURCES

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine: the page is not tested')

SIZE = (96, 160)
SHOTS = ROOT / 'work_dirs' / 'attention_tests'


def recording_of(*names: str) -> Recording:
    """Record small backbones, one after the other, as one model."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (6, 10, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 64 - 2
    recordings = [record(move_offsets(build_small(name)), pixels) for name in names]
    whole = recordings[0]
    whole.image = image
    whole.layers = [layer for r in recordings for layer in r.layers]
    for i, layer in enumerate(whole.layers):
        layer.name = f'{i}.{layer.name}'
    return whole


def points_layer(encoder: bool) -> PointsLayer:
    """Return made-up sampling points over two levels."""
    levels = ((6, 10), (3, 5))
    if encoder:
        grids = [np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).reshape(-1, 2) for h, w in levels]
        reference = np.concatenate([(g + 0.5) * s - 0.5 for g, s in zip(grids, (16, 32), strict=True)])
    else:
        reference = np.array([(20.0, 30.0), (100.0, 60.0), (140.0, 20.0)])
    n = len(reference)
    random = np.random.default_rng(1)
    offsets = random.normal(0, 12, (n, 4, 2, 3, 2))
    weights = random.random((n, 4, 2, 3))
    boxes = np.concatenate([reference - 12, reference + 12], axis=1).astype(np.float32)
    return PointsLayer(
        kind='deformable_detr',
        stage=0,
        block=1,
        name='encoder' if encoder else 'decoder',
        query_grid=(1, n),
        to_image=Affine(),
        levels=levels,
        locations=(reference[:, None, None, None] + offsets).astype(np.float32),
        weights=(weights / weights.sum((2, 3), keepdims=True)).astype(np.float32),
        reference=reference.astype(np.float32),
        is_encoder=encoder,
        boxes=None if encoder else boxes,
        labels=None if encoder else np.array([0, 1, 0]),
        scores=None if encoder else np.array([0.2, 0.9, 0.5], dtype=np.float32),
    )


@pytest.fixture(scope='module')
def recording() -> Recording:
    torch.manual_seed(0)
    whole = recording_of('DAT', 'DAT++', 'DPT', 'PVTv2-li')
    whole.layers += [points_layer(True), points_layer(False)]
    return whole


@pytest.fixture(scope='module')
def page(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    box = dict(box=[30, 20, 90, 70], label='cat <b>', class_index=1, score=0.8, outlines=[[30, 20, 90, 30, 60, 70]])
    predictions = Predictions([box], classes=('cat', 'dog'), best=[('cat', 0.75)])
    file = tmp_path_factory.mktemp('page') / 'page.html'
    file.write_text(build_page(recording, PageInfo('DAT & others', weights='random'), predictions), encoding='utf-8')
    return file


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp('profile'))
    yield started
    started.close()


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    browser.resize(1280, 900)
    browser.problems.clear()
    browser.open(page)
    yield browser
    assert browser.problems == []


def index_of(recording: Recording, kind: str, last: bool = True) -> int:
    found = [i for i, layer in enumerate(recording.layers) if layer.kind == kind]
    return found[-1 if last else 0]


def click(browser: Browser, x: float, y: float) -> None:
    """Click a pixel of the image."""
    left, top, scale, tx, ty = browser.js(
        '(() => {const b = document.getElementById("canvas").getBoundingClientRect(), v = viewer.view;'
        'return [b.left, b.top, v.scale, v.tx, v.ty]})()'
    )
    browser.click(left + x * scale + tx, top + y * scale + ty)


def test_attention_in_the_page_is_that_of_torch(opened: Browser, recording: Recording) -> None:
    for i, layer in enumerate(recording.layers):
        if not isinstance(layer, AttentionLayer):
            continue
        for query in (0, layer.query_index(77, 41), int(np.prod(layer.query_grid)) - 1):
            call = f'viewer.attention(viewer.page.layers[{i}], {query})'
            weights, keys = opened.js(f'[{call}].map((a) => [[...a.weights], a.keys])[0]')
            expected = layer.attention(query)[:, 0]
            if isinstance(layer, LocalLayer):
                assert keys == layer.attention_in_window(query)[0].tolist()
                expected = expected[:, keys]
            found = np.array(weights).reshape(layer.heads, -1)
            assert np.abs(found - expected).max() <= 1e-2 * expected.max(), layer.name


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


def test_windows_of_the_page_are_those_of_the_model(opened: Browser, recording: Recording) -> None:
    for kind in ('window', 'shifted_window', 'neighborhood'):
        i = index_of(recording, kind)
        layer = recording.layers[i]
        assert isinstance(layer, LocalLayer)
        for axis in (0, 1):
            n = layer.query_grid[axis]
            spans = opened.js(f'Array.from({{length: {n}}}, (_, j) => viewer.span(viewer.page.layers[{i}], j, {n}))')
            assert spans == layer.spans(axis).tolist()


def test_keyboard_changes_stage_block_head_and_view(opened: Browser) -> None:
    opened.js('viewer.set({layer: viewer.page.layers.findIndex((l) => l.kind === "deformable")})')
    before = opened.js('viewer.state.layer')
    opened.press('ArrowDown')
    assert opened.js('viewer.state.layer') != before
    opened.press('ArrowUp')
    assert opened.js('viewer.state.layer') == before
    stage = opened.js('document.getElementById("stage").value')
    opened.press('ArrowRight')
    assert opened.js('document.getElementById("stage").value') != stage
    opened.press('ArrowLeft')
    opened.js(f'viewer.set({{layer: {before}}})')
    opened.press('h')
    assert opened.js('viewer.state.head') == 0
    assert 'head 1 of' in opened.js('document.getElementById("caption").textContent')
    opened.press('3')
    assert opened.js('viewer.state.mode') == 'received'


def test_every_mode_of_every_layer_is_drawn(opened: Browser, recording: Recording) -> None:
    for i, layer in enumerate(recording.layers):
        for mode in opened.js(f'Object.keys(viewer.modes[viewer.page.layers[{i}].kind])'):
            opened.js(f'viewer.set({{layer: {i}, mode: "{mode}"}})')
            assert opened.js('viewer.state.mode') == mode
            drawn = opened.js('viewer.drawn')
            assert drawn['shapes'] > 2, (layer.name, mode)
            assert 'does not hold' not in drawn['text']
            svg = opened.js('viewer.svg()')
            assert svg.count('<svg') == 1
            assert 'NaN' not in re.sub(r'href="[^"]*"', '', svg), (layer.name, mode)


def test_object_queries_show_their_box_and_are_chosen_by_clicks(opened: Browser, recording: Recording) -> None:
    i = len(recording.layers) - 1
    opened.js(f'viewer.set({{layer: {i}}})')
    assert opened.js('viewer.state.object') == 1  # the most confident one
    assert 'dog 0.90' in opened.js('viewer.svg()')
    click(opened, 22, 28)
    assert opened.js('viewer.state.object') == 0
    circles = opened.js('viewer.build().shapes.filter((s) => s.type === "circle")')
    layer = recording.layers[i]
    assert isinstance(layer, PointsLayer)
    found = sorted((s['x'], s['y']) for s in circles)
    np.testing.assert_allclose(found, sorted(layer.locations[0].reshape(-1, 2).tolist()), atol=1e-3)


def test_png_and_svg_are_what_the_window_shows(opened: Browser) -> None:
    size = opened.js(
        '(() => {const c = viewer.pngCanvas(); return [c.width, c.height, viewer.view.width, viewer.view.height]})()'
    )
    assert size[0] == 2 * size[2]
    assert size[1] > 2 * size[3]
    same = """(() => {
      const {width, height} = viewer.view, shown = document.getElementById('canvas');
      const png = viewer.pngCanvas(), small = Object.assign(document.createElement('canvas'), {width, height});
      small.getContext('2d').drawImage(png, 0, 0, width * 2, height * 2, 0, 0, width, height);
      const a = small.getContext('2d').getImageData(0, 0, width, height).data;
      const b = shown.getContext('2d').getImageData(0, 0, width, height).data;
      let sum = 0;
      for (let i = 0; i < a.length; i++) sum += Math.abs(a[i] - b[i]);
      return sum / a.length;
    })()"""
    assert opened.js(same) < 6
    opened.js(
        'viewer.saved = null, HTMLAnchorElement.prototype.click = function () { viewer.saved = this.download; }, 0'
    )
    opened.js('document.getElementById("save-svg").click()')
    assert re.fullmatch(r'attention_stage\d_\d_query\.svg', opened.js('viewer.saved'))
    opened.press('s')
    opened.wait('viewer.saved.endsWith(".png")')


def test_predictions_are_laid_over_the_image_as_text(opened: Browser) -> None:
    opened.press('p')
    texts = opened.js('viewer.build().shapes.filter((s) => s.type === "text").map((s) => s.text)')
    assert texts == ['cat <b> 0.80']
    assert 'cat &#60;b&#62; 0.80' in opened.js('viewer.svg()')
    assert opened.js('document.getElementById("best").textContent') == 'cat 75.0 %'


def test_zoom_keeps_the_pixel_below_the_pointer(opened: Browser) -> None:
    at = opened.js('(() => {const v = viewer.view; return [(300 - v.tx) / v.scale, (200 - v.ty) / v.scale]})()')
    opened.js('viewer.zoom(3, 300, 200)')
    np.testing.assert_allclose(
        opened.js('(() => {const v = viewer.view; return [(300 - v.tx) / v.scale, (200 - v.ty) / v.scale]})()'), at
    )
    opened.press('0')
    assert opened.js('viewer.view.scale === viewer.view.fit')


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_page_fits_the_window(opened: Browser, width: int, theme: str) -> None:
    opened.resize(width, 844)
    opened.js(f'document.documentElement.dataset.theme = "{theme}"')
    opened.js('viewer.draw()')
    opened.screenshot(SHOTS / f'{width}_{theme}.png')
    assert opened.js('document.documentElement.scrollWidth') <= width
    hidden = """[...document.querySelectorAll('button, select, input')].filter((e) => e.offsetParent).filter((e) => {
      const b = e.getBoundingClientRect();
      return (b.right > innerWidth + 1 && !e.closest('#modes')) || b.width < 10;
    }).map((e) => e.id)"""
    assert opened.js(hidden) == []
    # Text contrast of WCAG AA.
    contrast = """(() => {
      const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
      const luminance = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
      };
      const back = luminance(getComputedStyle(document.body).backgroundColor);
      const text = luminance(getComputedStyle(document.getElementById('caption')).color);
      return Math.max(back, text) / Math.min(back, text);
    })()"""
    assert opened.js(contrast) >= 4.5


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
    assert True in held
    assert False in held
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
    times = []
    for i in range(8):
        click(browser, 100 + 140 * i, 60 + 80 * i)
        times.append(browser.js('viewer.drawn.milliseconds'))
        assert browser.js('viewer.queryIndex(viewer.layer(), ...viewer.state.query)') == layer.query_index(
            100 + 140 * i, 60 + 80 * i
        )
    print(f'{len(file.read_text()) / 1e6:.1f} MB, milliseconds per click: {sorted(times)}')
    assert sorted(times)[len(times) // 2] <= 100
