"""The page in a headless Chromium: controls, keyboard, saving, windows of different sizes."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attention_page import click
from browser import CHROMIUM, Browser
from running import ROOT

from deformable_vit.visualization import PageInfo, PointsLayer, Predictions, Recording, build_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine: the page is not tested')

SHOTS = ROOT / 'work_dirs' / 'attention_tests'


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


def test_label_map_has_a_legend_and_the_class_at_the_query(
    recording: Recording, browser: Browser, tmp_path: Path
) -> None:
    height, width = recording.size
    label_map = np.zeros((height, width), dtype=np.int64)
    label_map[:, 80:] = 9  # with 2 in the same color of the seven, were they not by rank
    label_map[:30, 100:] = 2
    predictions = Predictions(label_map=label_map, classes=[f'name {i}' for i in range(12)])
    (tmp_path / 'page.html').write_text(build_page(recording, PageInfo('map'), predictions), encoding='utf-8')
    browser.open(tmp_path / 'page.html')
    browser.press('p')
    browser.wait('viewer.drawn.text.includes("Predicted class there")')
    items = browser.js('[...document.querySelectorAll("#legend .item")].map((e) => e.textContent)')
    assert items[-3:] == ['name 0', 'name 9', 'name 2']
    assert len({c['color'] for c in browser.js('viewer.page.predictions.classes')}) == 3
    for x, y, name in ((20, 50, 'name 0'), (150, 80, 'name 9'), (130, 10, 'name 2')):
        click(browser, x, y)
        assert browser.js('viewer.drawn.text').endswith(f'Predicted class there: {name}.')


def test_svg_has_colors_of_svg_and_opacities_beside_them(opened: Browser) -> None:
    opened.js('viewer.set({layer: viewer.page.layers.findIndex((l) => l.kind === "deformable"), everything: true})')
    opened.press('p')
    svg = re.sub(r'href="[^"]*"', '', opened.js('viewer.svg()'))
    assert set(map(len, re.findall(r'"#([0-9a-f]+)"', svg))) <= {3, 6}
    assert 'fill-opacity="0.25"' in svg  # the mask of the object
    assert 'stroke-opacity="0.6"' in svg  # dots of all locations


def test_only_the_main_button_chooses_a_query(opened: Browser) -> None:
    left, top = opened.js('[document.getElementById("canvas").getBoundingClientRect()].flatMap((b) => [b.left, b.top])')
    before = opened.js('viewer.state.query')
    for kind in ('mousePressed', 'mouseReleased'):
        opened('Input.dispatchMouseEvent', type=kind, x=left + 40, y=top + 40, button='right', clickCount=1)
    assert opened.js('viewer.state.query') == before
    opened.click(left + 40, top + 40)
    assert opened.js('viewer.state.query') != before


def test_check_boxes_leave_the_keys_to_the_viewer(opened: Browser) -> None:
    opened.js('viewer.set({layer: viewer.page.layers.findIndex((l) => l.kind === "deformable" && l.heads > 1)})')
    opened.js('document.getElementById("arrows").focus()')
    opened.press('h')
    assert opened.js('viewer.state.head') == 0
    opened.press(' ')
    assert opened.js('viewer.state.arrows') is False
    layer = opened.js('viewer.state.layer')
    opened.press('ArrowRight')
    assert opened.js('viewer.state.layer') != layer


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


def test_query_follows_the_pointer_if_asked(opened: Browser) -> None:
    at = opened.js('[document.getElementById("canvas").getBoundingClientRect()].flatMap((b) => [b.left, b.top])')
    before = opened.js('viewer.state.query')
    opened('Input.dispatchMouseEvent', type='mouseMoved', x=at[0] + 60, y=at[1] + 40)
    assert opened.js('viewer.state.query') == before
    opened.press('f')
    opened('Input.dispatchMouseEvent', type='mouseMoved', x=at[0] + 90, y=at[1] + 50)
    opened.wait('viewer.state.query[0] !== 79.5')
    expected = opened.js('[viewer.view].flatMap((v) => [(90 - v.tx) / v.scale, (50 - v.ty) / v.scale])')
    np.testing.assert_allclose(opened.js('viewer.state.query'), expected, atol=0.5)


def test_padding_is_gray_and_not_part_of_the_image(recording: Recording, browser: Browser, tmp_path: Path) -> None:
    padded = replace(recording, padded_box=(-0.5, -0.5, 191.5, 95.5))
    assert padded.bounds == (-0.5, -0.5, 191.5, 95.5)
    assert recording.bounds == (-0.5, -0.5, 159.5, 95.5)
    file = tmp_path / 'padded.html'
    file.write_text(build_page(padded, PageInfo('padded')), encoding='utf-8')
    browser.resize(1280, 900)
    browser.open(file)
    padding, image = browser.js('viewer.build().shapes.slice(0, 2)')
    assert (padding['type'], padding['x1'], image['type'], image['x1']) == ('rect', 191.5, 'image', 159.5)
    assert 'padding' in browser.js('document.getElementById("legend").textContent')
    before = browser.js('viewer.state.query')
    click(browser, 175, 50)
    assert browser.js('viewer.state.query') == before
