from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from attention_page import points_layer, recording_of
from browser import Browser

from deformable_vit.visualization import PageInfo, Predictions, Recording, build_page


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
