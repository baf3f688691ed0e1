from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from attention_page import points_layer, recording_of
from browser import Browser

from deformable_vit.visualization import Recording, View, build_page

Open = Callable[..., Browser]


@pytest.fixture(scope='module')
def recording() -> Recording:
    torch.manual_seed(0)
    whole = recording_of('DAT', 'DAT++', 'DPT', 'PVTv2-li')
    whole.layers += [points_layer(True), points_layer(False)]
    return whole


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp('profile'))
    yield started
    started.close()


@pytest.fixture
def show(browser: Browser, recording: Recording, tmp_path: Path) -> Iterator[Open]:
    """Open a page, by default of all kinds of layers, in the browser."""

    def open_page(shown: Recording = recording, view: View | None = None, **options: object) -> Browser:
        text = build_page(shown, view or View.of(shown), 'DAT & others', names=['cat', 'dog'], **options)
        (tmp_path / 'page.html').write_text(text, encoding='utf-8')
        browser.resize(1280, 900)
        browser.open(tmp_path / 'page.html')
        return browser

    browser.problems.clear()
    yield open_page
    assert browser.problems == []
