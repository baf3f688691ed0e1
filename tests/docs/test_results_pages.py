"""The tables of configs/*/README.md and of README.md are those of the metafiles."""

import runpy

import pytest
from running import ROOT


@pytest.mark.nightly
def test_pages_are_up_to_date() -> None:
    pages = runpy.run_path(str(ROOT / 'tools' / 'dev' / 'results_pages.py'))['pages']()
    assert [page for page, text in pages.items() if text != page.read_text()] == [], 'run tools/dev/results_pages.py'
